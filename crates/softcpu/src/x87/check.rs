//! Whether an x87 or MMX instruction may execute now.

use x86defs::{cr, vector};

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::Stop;

impl Cpu {
    /// For any x87 instruction but WAIT: #NM if there is no FPU, or another task's state is in it (SDM vol. 3 table 9-3).
    #[inline(always)]
    pub fn x87_available(&mut self) -> Result<(), Stop> {
        if self.cr0 & (cr::CR0_EM | cr::CR0_TS) != 0 { Err(self.raise(vector::NM)) } else { Ok(()) }
    }

    /// For a waiting x87 instruction: as [`Cpu::x87_available`], then the error of an earlier one is reported.
    #[inline(always)]
    pub fn x87_ready(&mut self, env: &mut Env<'_>) -> Result<(), Stop> {
        self.x87_available()?;
        self.x87_settled(env)
    }

    /// For an MMX instruction: #UD if CR0.EM is set, #NM if CR0.TS is, then the error of an earlier x87 instruction is
    /// reported (SDM vol. 3 section 13.1).
    #[inline(always)]
    pub fn mmx_ready(&mut self, env: &mut Env<'_>) -> Result<(), Stop> {
        if self.cr0 & cr::CR0_EM != 0 {
            return Err(self.ud());
        }
        self.x87_ready(env)
    }

    /// Report an unmasked exception of an earlier instruction, if one waits: #MF, or FERR# if CR0.NE is clear (SDM vol. 1
    /// section 8.7).
    #[inline(always)]
    pub fn x87_settled(&mut self, env: &mut Env<'_>) -> Result<(), Stop> {
        if self.fpu.pending() { self.report_x87_error(env) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn report_x87_error(&mut self, env: &mut Env<'_>) -> Result<(), Stop> {
        if self.cr0 & cr::CR0_NE != 0 {
            return Err(self.raise(vector::MF));
        }
        if !self.careful {
            return Err(Stop::Careful);
        }
        let first = !self.fpu.signalled;
        self.fpu.signalled = true;
        // Without IGNNE# the CPU stands still before this instruction until it is interrupted.
        if env.bus.x87_error(self.index, first) { Ok(()) } else { Err(Stop::Again) }
    }
}
