//! Constants of the transcendental functions, rounded to 128 bits.

use super::wide::Wide;

/// π.
pub const PI: Wide = Wide::constant(1, 0xC90F_DAA2_2168_C234_C4C6_628B_80DC_1CD1);
/// π/2.
pub const HALF_PI: Wide = Wide::constant(0, 0xC90F_DAA2_2168_C234_C4C6_628B_80DC_1CD1);
/// ln 2.
pub const LN_2: Wide = Wide::constant(-1, 0xB172_17F7_D1CF_79AB_C9E3_B398_03F2_F6AF);
/// log2 e.
pub const LOG2_E: Wide = Wide::constant(0, 0xB8AA_3B29_5C17_F0BB_BE87_FED0_691D_3E89);
/// Steps of [`ARC_TANGENTS`] to one.
pub const ARC_TANGENT_STEPS: i32 = 16;
/// atan(i/16).
pub const ARC_TANGENTS: [Wide; 17] = [
    Wide::ZERO,
    Wide::constant(-5, 0xFFAA_DDB9_67EF_4E36_CB27_92DC_0E2E_0D51),
    Wide::constant(-4, 0xFEAD_D4D5_617B_6E32_C897_989F_3E88_8EF8),
    Wide::constant(-3, 0xBDCB_DA5E_72D8_1134_7B0B_4F88_1C9C_7488),
    Wide::constant(-3, 0xFADB_AFC9_6406_EB15_6DC7_9EF5_F7A2_17E6),
    Wide::constant(-2, 0x9B13_B9B8_3F5E_5E69_C5AB_B498_D27A_F328),
    Wide::constant(-2, 0xB7B0_CA0F_26F7_8473_8AA3_2122_DCFE_4483),
    Wide::constant(-2, 0xD327_761E_611F_E5B6_427C_95E9_001E_7136),
    Wide::constant(-2, 0xED63_382B_0DDA_7B45_6FE4_45EC_BC3A_8D03),
    Wide::constant(-1, 0x832B_F4A6_D986_7E2A_4B6A_09CB_61A5_15C1),
    Wide::constant(-1, 0x8F00_5D5E_F7F5_9F9B_5C83_5E16_65C4_3748),
    Wide::constant(-1, 0x9A2F_80E6_71BD_DA20_4226_F8E2_204F_F3BD),
    Wide::constant(-1, 0xA4BC_7D19_34F7_0924_19A8_7F2A_457D_AC9F),
    Wide::constant(-1, 0xAEAC_4C38_B4D8_C080_1472_5E2F_3E52_070A),
    Wide::constant(-1, 0xB805_3E2B_C231_9E73_CB2D_A552_10A4_443D),
    Wide::constant(-1, 0xC0CE_85B8_AC52_6640_89DD_62C4_6E92_FA25),
    Wide::constant(-1, 0xC90F_DAA2_2168_C234_C4C6_628B_80DC_1CD1),
];
/// Steps of [`LOGARITHMS`] to one.
pub const LOGARITHM_STEPS: i32 = 32;
/// The first of them.
pub const FIRST_LOGARITHM: i32 = 22;
/// log2(i/32), without its sign, for i from [`FIRST_LOGARITHM`].
pub const LOGARITHMS: [Wide; 25] = [
    Wide::constant(-1, 0x8A62_B07F_3457_C407_0507_99BE_AAAB_2941),
    Wide::constant(-2, 0xF3EF_AFF2_9C55_9A77_DA8A_D649_DA21_EAB0),
    Wide::constant(-2, 0xD47F_CB8C_0852_F0C0_BFE9_DBEB_F2E8_A45E),
    Wide::constant(-2, 0xB658_7B43_2E47_501B_6D40_900B_2502_4B32),
    Wide::constant(-2, 0x995F_F71B_8773_432D_124B_C6F1_ACF9_5DC4),
    Wide::constant(-3, 0xFAFE_C548_31F1_A484_7F7B_2787_B173_DA32),
    Wide::constant(-3, 0xC544_C055_FDE9_9333_54DB_F16F_B069_5EE3),
    Wide::constant(-3, 0x916D_6E15_59A4_B696_91D7_9938_E722_6384),
    Wide::constant(-4, 0xBEB0_24B6_7DDA_6339_DA28_8FC6_15A7_27DC),
    Wide::constant(-5, 0xBB9C_A64E_CAC6_AAEF_2E1C_07F0_438E_BAC0),
    Wide::ZERO,
    Wide::constant(-5, 0xB5D6_9BAC_77EC_3989_B037_84B5_BE08_4906),
    Wide::constant(-4, 0xB31F_B7D6_4898_B3E6_629C_130A_22BA_D61E),
    Wide::constant(-3, 0x8462_C466_D3CF_1CB1_3DE3_7E85_2A94_55EA),
    Wide::constant(-3, 0xAE00_D1CF_DEB4_3CFD_0058_9050_345D_6E89),
    Wide::constant(-3, 0xD67A_F16D_A764_9F7F_08F6_5E00_C1B1_A5A9),
    Wide::constant(-3, 0xFDE0_B5C8_1340_511D_46CC_C53C_2779_AF92),
    Wide::constant(-2, 0x9220_3D58_7039_CC12_2DCA_5D22_601D_FDDF),
    Wide::constant(-2, 0xA4D3_C25E_68DC_57F2_495F_B7FA_6D7E_DA67),
    Wide::constant(-2, 0xB711_0E6C_E866_F2BC_6A90_5A27_B81E_2219),
    Wide::constant(-2, 0xC8DD_D448_F8B8_45A5_95A8_2B5C_34E2_AC31),
    Wide::constant(-2, 0xDA3F_5FB9_C415_0520_A377_C7EC_513C_756E),
    Wide::constant(-2, 0xEB3A_9F01_9750_77F1_F5F0_CC82_AAA9_AD7E),
    Wide::constant(-2, 0xFBD4_2B46_5836_7670_C98C_0022_87AD_91AB),
    Wide::constant(-1, 0x8608_2806_B1D5_32C4_12BA_94DB_12EF_0AA8),
];
