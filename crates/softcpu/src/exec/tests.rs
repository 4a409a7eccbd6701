//! Instructions, run as a guest runs them.

use super::testing::{CODE, DATA, Machine, Mode, STACK};
use x86defs::{rflags, vector};

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSP: usize = 4;
const RSI: usize = 6;
const RDI: usize = 7;

#[test]
fn a_loop_runs_to_its_end() {
    for mode in [Mode::Real, Mode::Protected32, Mode::Long64] {
        let mut machine = Machine::new(mode);
        machine.cpu().regs[RCX] = 10;
        // add ax, cx; dec cx (inc/dec without REX in other modes is 48+r); jnz
        machine.run(&[0x01, 0xC8, 0xFF, 0xC9, 0x75, 0xFA]).unwrap();
        assert_eq!(machine.cpu().regs[RAX], 55, "{mode:?}");
        assert_eq!(machine.instructions(), 30);
    }
}
