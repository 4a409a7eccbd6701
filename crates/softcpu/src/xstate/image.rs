//! The whole state as one image, for whoever looks from outside.

use std::fmt;

use super::component::{AT_AVX, AT_PKRU, AVX, EXTENDED, IMPLEMENTED, LEGACY, Layout, PKRU, SSE, X87};
use super::lane_to_bytes;
use super::legacy::{self, Pointers, Region};
use super::restore::set_uppers;
use crate::cpu::Cpu;
use crate::vector::state::VectorState;
use crate::x87::state::Fpu;

/// All vector registers.
const REGISTERS: u8 = 16;

/// An image cannot be the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// It has another length than [`Cpu::xsave_image`]'s.
    Length,
    /// XSTATE_BV names a component that there is not, or the rest of the header is not zero.
    Header,
    /// MXCSR has reserved bits set.
    Mxcsr,
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "an XSAVE image has another length",
            Self::Header => "the header of the XSAVE image names what is not there",
            Self::Mxcsr => "MXCSR in the XSAVE image has reserved bits set",
        })
    }
}

impl std::error::Error for ImageError {}

impl Cpu {
    /// Everything that XSAVE64 could save, whatever XCR0 has enabled, in the standard format; XSTATE_BV names what is not in
    /// its initial configuration.
    pub fn xsave_image(&self) -> Vec<u8> {
        let layout = Layout::standard(&self.features);
        let mut image = vec![0; layout.size(IMPLEMENTED) as usize];
        let mut region: Region = [0; LEGACY];
        legacy::save_x87(&self.fpu, Pointers::ALL, &mut region);
        legacy::save_mxcsr(self, &mut region);
        legacy::save_xmm(&self.vector, REGISTERS, &mut region);
        let uppers: [[u8; 16]; 16] = std::array::from_fn(|i| lane_to_bytes(self.vector.ymm(i as u8)[1]));
        for (at, bytes) in [
            (0, &region[..]),
            (LEGACY as u64, &self.in_use(REGISTERS).to_le_bytes()),
            (layout.place(AT_AVX), uppers.as_flattened()),
            (layout.place(AT_PKRU), &self.pkru.to_le_bytes()),
        ] {
            let at = at as usize;
            image[at..at + bytes.len()].copy_from_slice(bytes);
        }
        image
    }

    /// Replace everything by what [`Cpu::xsave_image`] gave: what XSTATE_BV does not name gets its initial configuration, MXCSR
    /// apart.
    pub fn set_xsave_image(&mut self, image: &[u8]) -> Result<(), ImageError> {
        let layout = Layout::standard(&self.features);
        if image.len() as u64 != layout.size(IMPLEMENTED) {
            return Err(ImageError::Length);
        }
        let header = &image[LEGACY..EXTENDED as usize];
        let present = header.iter().take(8).rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        if present & !IMPLEMENTED != 0 || header[8..].iter().any(|&byte| byte != 0) {
            return Err(ImageError::Header);
        }
        let mut region: Region = [0; LEGACY];
        region.copy_from_slice(&image[..LEGACY]);
        let mxcsr = legacy::load_mxcsr(self, &region).ok_or(ImageError::Mxcsr)?;
        let mut vector = VectorState::default();
        vector.mxcsr = mxcsr;
        if present & SSE != 0 {
            legacy::load_xmm(&mut vector, REGISTERS, &region);
        }
        if present & AVX != 0 {
            let mut uppers = [[0; 16]; 16];
            let at = layout.place(AT_AVX) as usize;
            uppers.as_flattened_mut().copy_from_slice(&image[at..at + 256]);
            set_uppers(&mut vector, REGISTERS, &uppers);
        }
        self.vector = vector;
        self.fpu = if present & X87 != 0 { legacy::load_x87(&region, true) } else { Fpu::INITIAL };
        let at = layout.place(AT_PKRU) as usize;
        let pkru = image[at..at + 4].iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
        self.pkru = if present & PKRU != 0 { pkru } else { 0 };
        self.tlb.flush();
        Ok(())
    }
}
