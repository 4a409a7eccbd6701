//! What firmware does to the bus before it hands over: gives base address registers their addresses, routes the interrupt lines,
//! and lets the functions decode.

use super::bus::Pci;
use super::chipset::{HOST_BRIDGE_DEVFN, ISA_BRIDGE_DEVFN, PIRQ_ROUTE};
use super::config::{BARS, COMMAND_IO, COMMAND_MEMORY, Space};
use super::host_bridge::{PAM, PAM_WRITABLE};
use super::offset::INTERRUPT_LINE;
use crate::acpi_pm;

/// Where I/O windows begin, as in QEMU's machines.
const IO_BASE: u32 = 0xC000;
/// Where memory windows begin: behind them come the I/O APIC and the local APICs at 0xFEC0_0000.
const MEMORY_BASE: u32 = 0xFE00_0000;
/// Where PIRQA# to PIRQD# go.
pub const PIRQ_IRQS: [u8; 4] = [10, 10, 11, 11];
/// How a function of the chipset is connected whose interrupt is no PIRQ: the PIIX4's is the system control interrupt.
const CHIPSET_SLOT: u8 = 1;

/// The next free address in each space.
struct Free {
    io: u32,
    memory: u32,
}

impl Free {
    /// Windows lie at multiples of their size.
    fn take(&mut self, space: Space, size: u32) -> u32 {
        let next = match space {
            Space::Io => &mut self.io,
            Space::Memory => &mut self.memory,
        };
        let address = next.next_multiple_of(size);
        *next = address + size;
        address
    }
}

impl Pci {
    /// Configure every function as firmware would, in the order of their places.
    pub fn assign(&mut self) {
        self.is_assigned = true;
        let mut free = Free { io: IO_BASE, memory: MEMORY_BASE };
        self.for_each_function(|function| {
            let config = &mut function.config;
            for index in 0..BARS {
                if let Some(bar) = config.bar(index) {
                    config.set_bar_address(index, free.take(bar.space, bar.size));
                }
            }
            config.set_command(COMMAND_IO | COMMAND_MEMORY);
            if let Some(pirq) = function.pirq() {
                let irq = if function.slot() == CHIPSET_SLOT { acpi_pm::SCI } else { PIRQ_IRQS[pirq] };
                function.config.write(INTERRUPT_LINE, 1, irq.into());
            }
            match function.devfn {
                ISA_BRIDGE_DEVFN => function.config.put(PIRQ_ROUTE, &PIRQ_IRQS),
                // All of RAM can be read and written.
                HOST_BRIDGE_DEVFN => function.config.put(PAM, &PAM_WRITABLE),
                _ => {}
            }
        });
    }
}
