//! VMCALL and VMMCALL, as the silicon beneath the guest treats them.

use vcpu::Exit;

use crate::cpu::{Cpu, HostVendor};
use crate::engine::Env;
use crate::op::{Answer, Flow, Op, Step};

/// VMCALL: exits on Intel, in every mode and at every CPL (SDM vol. 3 section 26.1.2).
pub fn vmcall(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    if cpu.host == HostVendor::Intel { hypercall(cpu, env) } else { Err(cpu.ud()) }
}

/// VMMCALL: exits on AMD (APM vol. 3 VMMCALL).
pub fn vmmcall(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    if cpu.host == HostVendor::Amd { hypercall(cpu, env) } else { Err(cpu.ud()) }
}

/// The hypercall itself, whatever the instruction: exit, and take the answer.
pub fn hypercall(cpu: &mut Cpu, env: &mut Env<'_>) -> Step {
    match cpu.replay.take() {
        Some(Answer::Value(value)) => cpu.regs[0] = if cpu.mode.is_64() { value } else { value & 0xFFFF_FFFF },
        Some(Answer::Done | Answer::Cpuid(_)) => {}
        Some(Answer::Fault) => return Err(cpu.gp0()),
        None => return Err(cpu.ask(Exit::Hypercall { vcpu: cpu.index })),
    }
    if let Some(activity) = cpu.activity_after_call.take() {
        cpu.activity = activity;
    }
    env.charge_exit();
    Ok(Flow::Sync)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Activity;
    use crate::op::Stop;
    use crate::testing::Machine;

    #[test]
    fn the_foreign_instruction_does_not_exist() {
        let op = Op::new(vmcall);
        for (host, intel, amd) in
            [(HostVendor::Intel, true, false), (HostVendor::Amd, false, true), (HostVendor::Lguest, false, false)]
        {
            let mut machine = Machine::long64();
            machine.cpu.host = host;
            for (handler, native) in [(vmcall as crate::op::Handler, intel), (vmmcall, amd)] {
                let stop = machine.with(|cpu, env| handler(cpu, env, &op));
                assert_eq!(stop, Err(if native { Stop::Exit } else { Stop::Fault }), "{host:?}");
            }
        }
    }

    #[test]
    fn a_call_may_end_with_the_vcpu_parked_once() {
        let op = Op::new(vmcall);
        let mut machine = Machine::long64();
        machine.cpu.activity_after_call = Some(Activity::WaitForSipi);
        for expected in [Activity::WaitForSipi, Activity::Running] {
            machine.cpu.activity = Activity::Running;
            machine
                .with(|cpu, env| {
                    cpu.replay.answer(Answer::Value(0));
                    vmcall(cpu, env, &op)
                })
                .expect("answered");
            assert_eq!(machine.cpu.activity, expected);
        }
    }

    #[test]
    fn the_answer_is_truncated_outside_64_bit_code() {
        let op = Op::new(vmcall);
        for (mut machine, expected) in [(Machine::long64(), u64::MAX), (Machine::protected32(), 0xFFFF_FFFF)] {
            machine
                .with(|cpu, env| {
                    cpu.replay.answer(Answer::Value(u64::MAX));
                    vmcall(cpu, env, &op)
                })
                .expect("answered");
            assert_eq!(machine.cpu.regs[0], expected);
        }
    }
}
