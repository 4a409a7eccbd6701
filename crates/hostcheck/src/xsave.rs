//! The XSAVE image in standard form: x87, SSE and AVX state as both sides exchange it (SDM vol. 1 section 13.4).

/// Bytes: legacy area, header, upper halves of the YMM registers.
pub const SIZE: usize = 832;
/// x87, SSE and AVX.
pub const COMPONENTS: u64 = 7;

const FCW: usize = 0;
const FSW: usize = 2;
const FTW: usize = 4;
const FOP: usize = 6;
const FIP: usize = 8;
const FDP: usize = 16;
const MXCSR: usize = 24;
const ST: usize = 32;
const XMM: usize = 160;
const HEADER: usize = 512;
const YMM_HIGH: usize = 576;

/// An image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Xsave(pub [u8; SIZE]);

impl Default for Xsave {
    /// As FNINIT and RESET leave the registers, all components present.
    fn default() -> Self {
        let mut image = Self([0; SIZE]);
        image.0[HEADER] = COMPONENTS as u8;
        image.set_fcw(0x37F);
        image.set_mxcsr(0x1F80);
        image
    }
}

impl Xsave {
    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[at..at + N]);
        bytes
    }
    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
    /// x87 control word.
    pub fn fcw(&self) -> u16 {
        u16::from_le_bytes(self.get(FCW))
    }
    /// Change it.
    pub fn set_fcw(&mut self, value: u16) {
        self.set(FCW, &value.to_le_bytes());
    }
    /// x87 status word.
    pub fn fsw(&self) -> u16 {
        u16::from_le_bytes(self.get(FSW))
    }
    /// Change it.
    pub fn set_fsw(&mut self, value: u16) {
        self.set(FSW, &value.to_le_bytes());
    }
    /// Abridged tags: a bit for each physical register that is not empty.
    pub fn ftw(&self) -> u8 {
        self.0[FTW]
    }
    /// Change them.
    pub fn set_ftw(&mut self, value: u8) {
        self.0[FTW] = value;
    }
    /// Last x87 opcode.
    pub fn fop(&self) -> u16 {
        u16::from_le_bytes(self.get(FOP))
    }
    /// Change it.
    pub fn set_fop(&mut self, value: u16) {
        self.set(FOP, &value.to_le_bytes());
    }
    /// Last x87 instruction's address.
    pub fn fip(&self) -> u64 {
        u64::from_le_bytes(self.get(FIP))
    }
    /// Change it.
    pub fn set_fip(&mut self, value: u64) {
        self.set(FIP, &value.to_le_bytes());
    }
    /// Last x87 operand's address.
    pub fn fdp(&self) -> u64 {
        u64::from_le_bytes(self.get(FDP))
    }
    /// Change it.
    pub fn set_fdp(&mut self, value: u64) {
        self.set(FDP, &value.to_le_bytes());
    }
    /// MXCSR.
    pub fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.get(MXCSR))
    }
    /// Change it.
    pub fn set_mxcsr(&mut self, value: u32) {
        self.set(MXCSR, &value.to_le_bytes());
    }
    /// ST(i): significand, then sign and exponent.
    pub fn st(&self, i: usize) -> (u64, u16) {
        (u64::from_le_bytes(self.get(ST + 16 * i)), u16::from_le_bytes(self.get(ST + 16 * i + 8)))
    }
    /// Change it.
    pub fn set_st(&mut self, i: usize, (significand, sign_exponent): (u64, u16)) {
        self.set(ST + 16 * i, &significand.to_le_bytes());
        self.set(ST + 16 * i + 8, &sign_exponent.to_le_bytes());
    }
    /// XMM register.
    pub fn xmm(&self, i: usize) -> u128 {
        u128::from_le_bytes(self.get(XMM + 16 * i))
    }
    /// Change it.
    pub fn set_xmm(&mut self, i: usize, value: u128) {
        self.set(XMM + 16 * i, &value.to_le_bytes());
    }
    /// Upper half of a YMM register.
    pub fn ymm_high(&self, i: usize) -> u128 {
        u128::from_le_bytes(self.get(YMM_HIGH + 16 * i))
    }
    /// Change it.
    pub fn set_ymm_high(&mut self, i: usize, value: u128) {
        self.set(YMM_HIGH + 16 * i, &value.to_le_bytes());
    }
}
