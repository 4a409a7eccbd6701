//! What instructions do around the arithmetic, which `softfloat` tests itself: operands, exceptions, MXCSR.

use softfloat::flag;
use x86defs::{cr, rflags, vector};

use crate::exec::testing::{DATA, Machine, Mode};
use crate::vector::state::Ymm;

const MASKED: u32 = 0x1F80;
const ONES: [u64; 2] = [u64::MAX; 2];

fn machine() -> Machine {
    let mut machine = Machine::new(Mode::Long64);
    let cpu = machine.cpu();
    cpu.cr4 |= cr::CR4_OSFXSR | cr::CR4_OSXSAVE | cr::CR4_OSXMMEXCPT;
    cpu.xcr0 = 7;
    cpu.regs[0] = DATA;
    cpu.mode_changed();
    machine
}

fn singles(values: [f32; 4]) -> [u64; 2] {
    let bits = values.map(|value| u64::from(value.to_bits()));
    [bits[0] | bits[1] << 32, bits[2] | bits[3] << 32]
}

fn doubles(low: f64, high: f64) -> [u64; 2] {
    [low.to_bits(), high.to_bits()]
}

/// Execute with these contents of registers 1 and 2; gives register 1.
fn run(code: &[u8], first: Ymm, second: Ymm) -> Ymm {
    let mut machine = machine();
    machine.cpu().vector.set_ymm(1, first);
    machine.cpu().vector.set_ymm(2, second);
    assert_eq!(machine.run(code), Ok(()), "{code:02x?}");
    machine.cpu().vector.ymm(1)
}

#[test]
fn a_scalar_result_leaves_the_rest_of_the_first_source() {
    let (a, b) = ([doubles(1.0, 7.0), ONES], [doubles(2.0, 9.0), [0; 2]]);
    assert_eq!(run(&[0xF2, 0x0F, 0x58, 0xCA], a, b), [doubles(3.0, 7.0), ONES]); // addsd %xmm2, %xmm1
    assert_eq!(run(&[0xC5, 0xEB, 0x58, 0xC9], a, b), [doubles(3.0, 9.0), [0; 2]]); // vaddsd %xmm1, %xmm2, %xmm1
    assert_eq!(run(&[0xF2, 0x0F, 0x51, 0xCA], a, b)[0][1], 7f64.to_bits()); // sqrtsd %xmm2, %xmm1
}

#[test]
fn vex256_computes_both_lanes() {
    let (a, b) = (singles([1.0, 2.0, 3.0, 4.0]), singles([0.5, 0.25, 2.0, -1.0]));
    let products = singles([0.5, 0.5, 6.0, -4.0]);
    assert_eq!(run(&[0xC5, 0xF4, 0x59, 0xCA], [a, b], [b, a]), [products; 2]); // vmulps %ymm2, %ymm1, %ymm1
    assert_eq!(run(&[0xC5, 0xF0, 0x59, 0xCA], [a, b], [b, a]), [products, [0; 2]]); // vmulps %xmm2, %xmm1, %xmm1
}

#[test]
fn a_masked_exception_sets_its_flag() {
    let mut machine = machine();
    machine.cpu().vector.set_xmm(1, doubles(1.0, 1.0));
    machine.cpu().vector.set_xmm(2, doubles(3.0, 0.0));
    machine.run(&[0x66, 0x0F, 0x5E, 0xCA]).expect("divpd %xmm2, %xmm1");
    assert_eq!(machine.cpu().vector.xmm(1), doubles(1.0 / 3.0, f64::INFINITY));
    assert_eq!(machine.cpu().vector.mxcsr, MASKED | u32::from(flag::PE | flag::ZE));
}

#[test]
fn an_unmasked_exception_stores_nothing() {
    let unmasked = MASKED & !(u32::from(flag::ZE) << 7);
    for (cr4, vector) in [(cr::CR4_OSXMMEXCPT, vector::XM), (0, vector::UD)] {
        let mut machine = machine();
        machine.cpu().cr4 = machine.cpu().cr4 & !cr::CR4_OSXMMEXCPT | cr4;
        machine.cpu().vector.mxcsr = unmasked;
        machine.cpu().vector.set_xmm(1, doubles(1.0, 1.0));
        machine.cpu().vector.set_xmm(2, doubles(3.0, 0.0));
        assert_eq!(machine.run(&[0x66, 0x0F, 0x5E, 0xCA]), Err(vector)); // divpd %xmm2, %xmm1
        assert_eq!(machine.cpu().vector.xmm(1), doubles(1.0, 1.0));
        // 1/3 was not computed, since 1/0 was found before.
        assert_eq!(machine.cpu().vector.mxcsr, unmasked | u32::from(flag::ZE));
    }
}

#[test]
fn an_exact_result_that_is_too_small_is_no_precision_exception() {
    let mut machine = machine();
    let unmasked = MASKED & !(u32::from(flag::UE) << 7);
    machine.cpu().vector.mxcsr = unmasked;
    machine.cpu().vector.set_xmm(1, doubles(f64::MIN_POSITIVE * 1.5, 0.0));
    machine.cpu().vector.set_xmm(2, doubles(f64::MIN_POSITIVE, 0.0));
    assert_eq!(machine.run(&[0xF2, 0x0F, 0x59, 0xCA]), Err(vector::XM)); // mulsd %xmm2, %xmm1
    assert_eq!(machine.cpu().vector.mxcsr, unmasked | u32::from(flag::UE));
}

#[test]
fn comparison_sets_flags() {
    let nan = f64::NAN;
    for (a, b, expected) in [
        (1.0, 2.0, rflags::CF),
        (2.0, 2.0, rflags::ZF),
        (3.0, 2.0, 0),
        (nan, 2.0, rflags::CF | rflags::PF | rflags::ZF),
    ] {
        for (code, invalid) in [([0x66, 0x0F, 0x2E, 0xCA], false), ([0x66, 0x0F, 0x2F, 0xCA], a.is_nan())] {
            let mut machine = machine();
            machine.cpu().flags.set_bits(rflags::ARITHMETIC);
            machine.cpu().vector.set_xmm(1, doubles(a, 0.0));
            machine.cpu().vector.set_xmm(2, doubles(b, 0.0));
            machine.run(&code).expect("ucomisd, comisd");
            assert_eq!(machine.cpu().rflags() & rflags::ARITHMETIC, expected);
            assert_eq!(machine.cpu().vector.mxcsr & 1 != 0, invalid);
        }
    }
}

#[test]
fn each_predicate_is_true_for_its_outcomes() {
    let (less, equal, greater, unordered) = ([1.0f32, 2.0], [2.0, 2.0], [3.0, 2.0], [f32::NAN, 2.0]);
    let pairs = [less, equal, greater, unordered];
    let (a, b) = (singles(pairs.map(|pair| pair[0])), singles(pairs.map(|pair| pair[1])));
    let outcome = |imm: u8| {
        let [low, high] = run(&[0xC5, 0xF0, 0xC2, 0xCA, imm], [a, ONES], [b, ONES])[0]; // vcmpps $imm, %xmm2, %xmm1, %xmm1
        [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32].map(|mask| mask == u32::MAX)
    };
    assert_eq!(outcome(0x01), [true, false, false, false]); // LT_OS
    assert_eq!(outcome(0x13), [false, false, false, true]); // UNORD_S
    assert_eq!(outcome(0x14), [true, false, true, true]); // NEQ_US
    assert_eq!(outcome(0x0D), [false, true, true, false]); // GE_OS
    assert_eq!(outcome(0x1F), [true; 4]); // TRUE_US
    for imm in 0..16 {
        assert_eq!(outcome(imm), outcome(imm | 0xF0), "{imm}: the upper bits decide on IE only");
    }
}

#[test]
fn conversions_to_general_registers() {
    for (value, mxcsr, code, expected) in [
        (2.5, MASKED, &[0xF2, 0x0F, 0x2D, 0xC1][..], 2), // cvtsd2si %xmm1, %eax
        (2.5, MASKED | 2 << 13, &[0xF2, 0x0F, 0x2D, 0xC1], 3), // upwards
        (-2.5, MASKED, &[0xF2, 0x0F, 0x2C, 0xC1], 0xFFFF_FFFE), // cvttsd2si %xmm1, %eax
        (-2.5, MASKED, &[0xF2, 0x48, 0x0F, 0x2C, 0xC1], -2i64 as u64), // cvttsd2si %xmm1, %rax
        (1e10, MASKED, &[0xF2, 0x0F, 0x2C, 0xC1], 0x8000_0000), // does not fit
        (1e10, MASKED, &[0xF2, 0x48, 0x0F, 0x2C, 0xC1], 10_000_000_000u64), // does
    ] {
        let mut machine = machine();
        machine.cpu().vector.mxcsr = mxcsr;
        machine.cpu().vector.set_xmm(1, doubles(value, 0.0));
        machine.run(code).expect("no exception");
        assert_eq!(machine.cpu().regs[0], expected, "{value} {code:02x?}");
    }
}

#[test]
fn conversions_change_the_width_of_vectors() {
    let ymm = [doubles(1.0, 2.0), doubles(3.0, 4.0)];
    let narrow = singles([1.0, 2.0, 3.0, 4.0]);
    assert_eq!(run(&[0xC5, 0xFD, 0x5A, 0xCA], ymm, ymm), [narrow, [0; 2]]); // vcvtpd2ps %ymm2, %xmm1
    assert_eq!(run(&[0xC5, 0xFC, 0x5A, 0xCA], ymm, [narrow, ONES]), ymm); // vcvtps2pd %xmm2, %ymm1
    assert_eq!(run(&[0x66, 0x0F, 0x5A, 0xCA], [ONES; 2], ymm), [[narrow[0], 0], ONES]); // cvtpd2ps %xmm2, %xmm1
}

#[test]
fn half_precision_goes_to_memory_and_back() {
    let mut machine = machine();
    let values = singles([1.0, -0.5, 65504.0, 1e9]);
    machine.cpu().vector.set_ymm(1, [values, ONES]);
    machine.run(&[0xC4, 0xE3, 0x79, 0x1D, 0x08, 0x00]).expect("vcvtps2ph $0, %xmm1, (%rax)");
    assert_eq!(machine.peek64(DATA), 0x7C00_7BFF_B800_3C00);
    assert_eq!(machine.peek64(DATA + 8), 0);
    machine.run(&[0xC4, 0xE2, 0x79, 0x13, 0x08]).expect("vcvtph2ps (%rax), %xmm1");
    assert_eq!(machine.cpu().vector.ymm(1), [singles([1.0, -0.5, 65504.0, f32::INFINITY]), [0; 2]]);
}

#[test]
fn fused_multiply_add_takes_its_operands_in_three_orders() {
    // %xmm1 = 2, %xmm2 = 3, memory = 5; vfmadd…sd (%rax), %xmm2, %xmm1
    for (opcode, expected) in [(0x99, 2.0 * 5.0 + 3.0), (0xA9, 3.0 * 2.0 + 5.0), (0xB9, 3.0 * 5.0 + 2.0)] {
        let mut machine = machine();
        machine.poke(DATA, &5f64.to_le_bytes());
        machine.cpu().vector.set_ymm(1, [doubles(2.0, 8.0), ONES]);
        machine.cpu().vector.set_xmm(2, doubles(3.0, 9.0));
        machine.run(&[0xC4, 0xE2, 0xE9, opcode, 0x08]).expect("no exception");
        assert_eq!(machine.cpu().vector.ymm(1), [doubles(expected, 8.0), [0; 2]]);
    }
}

#[test]
fn mxcsr_has_no_upper_half() {
    let mut machine = machine();
    machine.poke(DATA, &0xFFFFu32.to_le_bytes());
    machine.run(&[0x0F, 0xAE, 0x10]).expect("ldmxcsr (%rax)");
    assert_eq!(machine.cpu().vector.mxcsr, 0xFFFF);
    machine.poke(DATA, &0x1_1F80u32.to_le_bytes());
    assert_eq!(machine.run(&[0xC5, 0xF8, 0xAE, 0x10]), Err(vector::GP)); // vldmxcsr (%rax)
    machine.run(&[0x0F, 0xAE, 0x18]).expect("stmxcsr (%rax)");
    assert_eq!(machine.peek64(DATA) as u32, 0xFFFF);
}

#[test]
fn memory_operands_are_as_long_as_what_is_converted() {
    let mut machine = machine();
    // The last bytes of RAM: what lies behind is a device, whose reading would show.
    let end = crate::exec::testing::RAM;
    for (code, bytes) in [
        (&[0xF3, 0x0F, 0x58, 0x08][..], 4),    // addss
        (&[0xF2, 0x0F, 0x58, 0x08], 8),        // addsd
        (&[0xF2, 0x0F, 0x2D, 0x18], 8),        // cvtsd2si to %ebx
        (&[0x0F, 0x5A, 0x08], 8),              // cvtps2pd
        (&[0xC5, 0xFC, 0x5A, 0x08], 16),       // vcvtps2pd to %ymm1
        (&[0xF3, 0x0F, 0xE6, 0x08], 8),        // cvtdq2pd
        (&[0xC4, 0xE2, 0x79, 0x13, 0x08], 8),  // vcvtph2ps to %xmm1
        (&[0xC4, 0xE2, 0x7D, 0x13, 0x08], 16), // vcvtph2ps to %ymm1
    ] {
        machine.cpu().regs[0] = end - bytes;
        machine.run(code).expect("no exception");
        assert!(machine.bus.reads.is_empty(), "{code:02x?}");
    }
}

#[test]
fn a_dot_product_adds_chosen_products() {
    let (a, b) = (singles([1.0, 2.0, 3.0, 4.0]), singles([10.0, 100.0, 1000.0, 1e4]));
    let result = run(&[0x66, 0x0F, 0x3A, 0x40, 0xCA, 0xB5], [a, ONES], [b, ONES]); // dpps $0xb5, %xmm2, %xmm1
    assert_eq!(result, [singles([40210.0, 0.0, 40210.0, 0.0]), ONES]);
}
