//! The pair of 8259A interrupt controllers, Intel data sheet 231468, with the edge/level registers of PC chipsets.

/// Ports of the first controller.
pub const MASTER_COMMAND: u16 = 0x20;
pub const MASTER_DATA: u16 = 0x21;
/// Ports of the second controller.
pub const SLAVE_COMMAND: u16 = 0xA0;
pub const SLAVE_DATA: u16 = 0xA1;
/// Edge/level control registers.
pub const MASTER_ELCR: u16 = 0x4D0;
pub const SLAVE_ELCR: u16 = 0x4D1;

/// The master's input that the slave is connected to.
const CASCADE: u8 = 2;
/// Which lines may be switched to level: not timer, keyboard, cascade, clock and coprocessor.
const ELCR_WRITABLE: [u8; 2] = [0xF8, 0xDE];

/// ICW1, told from OCW2 and OCW3 by this bit.
const ICW1: u8 = 1 << 4;
const ICW1_NEEDS_ICW4: u8 = 1 << 0;
const ICW1_SINGLE: u8 = 1 << 1;
const ICW4_AUTO_EOI: u8 = 1 << 1;
const ICW4_SPECIAL_FULLY_NESTED: u8 = 1 << 4;
/// OCW3, told from OCW2 by this bit.
const OCW3: u8 = 1 << 3;
const OCW3_READ_ISR: u8 = 1 << 0;
const OCW3_READ: u8 = 1 << 1;
const OCW3_POLL: u8 = 1 << 2;
const OCW3_SPECIAL_MASK: u8 = 1 << 5;
const OCW3_SET_SPECIAL_MASK: u8 = 1 << 6;
const OCW2_EOI: u8 = 1 << 5;
const OCW2_SPECIFIC: u8 = 1 << 6;
const OCW2_ROTATE: u8 = 1 << 7;

/// Which initialisation command word the data port expects.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
enum Initialisation {
    #[default]
    Done,
    Icw2,
    Icw3,
    Icw4,
}

/// One 8259A.
#[derive(Clone, Debug, Default, Hash)]
struct Chip {
    /// Requests: latched edges, and lines that are level-triggered and high.
    irr: u8,
    isr: u8,
    imr: u8,
    elcr: u8,
    lines: u8,
    vector_base: u8,
    /// The input of lowest priority; the one after it has the highest.
    lowest: u8,
    initialisation: Initialisation,
    needs_icw4: bool,
    single: bool,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    special_fully_nested: bool,
    special_mask: bool,
    read_isr: bool,
    poll: bool,
    /// Inputs that follow their line although they are edge-triggered: the cascade, whose line the slave holds up until
    /// it has nothing left.
    follow: u8,
}

impl Chip {
    fn new(follow: u8) -> Self {
        Self { lowest: 7, follow, ..Self::default() }
    }

    fn set_line(&mut self, input: u8, level: bool) {
        let bit = 1 << input;
        let rises = level && self.lines & bit == 0;
        if level {
            self.lines |= bit
        } else {
            self.lines &= !bit
        }
        if rises {
            self.irr |= bit;
        }
        if !level && (self.elcr | self.follow) & bit != 0 {
            self.irr &= !bit;
        }
    }

    /// The position of an input in the present order of priorities, 0 being the highest.
    fn rank(&self, input: u8) -> u8 {
        input.wrapping_sub(self.lowest).wrapping_sub(1) & 7
    }

    /// The input of highest priority in a set.
    fn first(&self, set: u8) -> Option<u8> {
        (1..=8).map(|distance| self.lowest.wrapping_add(distance) & 7).find(|&input| set & 1 << input != 0)
    }

    /// The input that interrupts now.
    fn request(&self) -> Option<u8> {
        let request = self.first(self.irr & !self.imr)?;
        let mut in_service = self.isr;
        if self.special_mask {
            // A masked level in service holds nothing up.
            in_service &= !self.imr;
        }
        if self.special_fully_nested {
            // The slave may interrupt itself by something more urgent.
            in_service &= !(self.follow & 1 << request);
        }
        match self.first(in_service) {
            Some(current) if self.rank(current) <= self.rank(request) => None,
            _ => Some(request),
        }
    }

    fn acknowledge(&mut self, input: u8) {
        let bit = 1 << input;
        if (self.elcr | self.follow) & bit == 0 {
            self.irr &= !bit;
        }
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_on_auto_eoi {
            self.lowest = input;
        }
    }

    /// The INTA cycle; without a request the spurious interrupt of input 7, which is not in service.
    fn acknowledge_request(&mut self) -> u8 {
        match self.request() {
            Some(input) => {
                self.acknowledge(input);
                input
            }
            None => 7,
        }
    }

    fn write_command(&mut self, value: u8) {
        if value & ICW1 != 0 {
            self.start_initialisation(value);
        } else if value & OCW3 != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
    }

    fn start_initialisation(&mut self, icw1: u8) {
        *self = Self {
            elcr: self.elcr,
            lines: self.lines,
            vector_base: self.vector_base,
            // The edge detectors start anew; lines that are level-triggered still request.
            irr: self.lines & (self.elcr | self.follow),
            needs_icw4: icw1 & ICW1_NEEDS_ICW4 != 0,
            single: icw1 & ICW1_SINGLE != 0,
            initialisation: Initialisation::Icw2,
            ..Self::new(self.follow)
        };
    }

    fn write_ocw3(&mut self, value: u8) {
        if value & OCW3_POLL != 0 {
            self.poll = true;
        }
        if value & OCW3_READ != 0 {
            self.read_isr = value & OCW3_READ_ISR != 0;
        }
        if value & OCW3_SET_SPECIAL_MASK != 0 {
            self.special_mask = value & OCW3_SPECIAL_MASK != 0;
        }
    }

    fn write_ocw2(&mut self, value: u8) {
        let rotate = value & OCW2_ROTATE != 0;
        let named = value & 7;
        match (value & OCW2_EOI != 0, value & OCW2_SPECIFIC != 0) {
            (true, specific) => {
                let in_service = if self.special_mask { self.isr & !self.imr } else { self.isr };
                let input = if specific { Some(named) } else { self.first(in_service) };
                if let Some(input) = input {
                    self.isr &= !(1 << input);
                    if rotate {
                        self.lowest = input;
                    }
                }
            }
            (false, false) => self.rotate_on_auto_eoi = rotate,
            (false, true) if rotate => self.lowest = named,
            (false, true) => {}
        }
    }

    fn write_data(&mut self, value: u8) {
        self.initialisation = match self.initialisation {
            Initialisation::Done => {
                self.imr = value;
                Initialisation::Done
            }
            Initialisation::Icw2 => {
                self.vector_base = value & 0xF8;
                match (self.single, self.needs_icw4) {
                    (false, _) => Initialisation::Icw3,
                    (true, true) => Initialisation::Icw4,
                    (true, false) => Initialisation::Done,
                }
            }
            // The cascade is wired as in every PC, whatever ICW3 says.
            Initialisation::Icw3 if self.needs_icw4 => Initialisation::Icw4,
            Initialisation::Icw3 => Initialisation::Done,
            Initialisation::Icw4 => {
                self.auto_eoi = value & ICW4_AUTO_EOI != 0;
                self.special_fully_nested = value & ICW4_SPECIAL_FULLY_NESTED != 0;
                Initialisation::Done
            }
        };
    }

    fn read(&mut self, data_port: bool) -> u8 {
        if std::mem::take(&mut self.poll) {
            return match self.request() {
                Some(input) => {
                    self.acknowledge(input);
                    0x80 | input
                }
                None => 0,
            };
        }
        match (data_port, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr,
        }
    }

    fn set_elcr(&mut self, value: u8) {
        self.elcr = value;
        // What is level-triggered requests exactly while its line is high.
        self.irr = self.irr & !value | self.lines & value;
    }
}

/// Both controllers, the second cascaded into the first.
#[derive(Clone, Debug, Hash)]
pub struct Pic {
    chips: [Chip; 2],
    /// The INTR output.
    output: bool,
}

impl Pic {
    pub fn new() -> Self {
        Self { chips: [Chip::new(1 << CASCADE), Chip::new(0)], output: false }
    }

    /// RESET. The lines belong to the devices.
    pub fn reset(&mut self) {
        let lines = [self.chips[0].lines, self.chips[1].lines];
        *self = Self::new();
        self.chips[0].lines = lines[0] & !(1 << CASCADE);
        self.chips[1].lines = lines[1];
    }

    /// Whether INTR is active.
    #[inline]
    pub fn output(&self) -> bool {
        self.output
    }

    /// Change input 0 to 15; the cascade input is not a line.
    pub fn set_line(&mut self, irq: u8, level: bool) {
        if irq < 16 && irq != CASCADE {
            self.chips[usize::from(irq / 8)].set_line(irq % 8, level);
            self.update();
        }
    }

    /// Whether a further edge on the line would change nothing.
    pub fn is_latched(&self, irq: u8) -> bool {
        irq < 16 && self.chips[usize::from(irq / 8)].irr & 1 << (irq % 8) != 0
    }

    fn update(&mut self) {
        let slave = self.chips[1].request().is_some();
        self.chips[0].set_line(CASCADE, slave);
        self.output = self.chips[0].request().is_some();
    }

    /// The INTA cycles: the vector.
    pub fn acknowledge(&mut self) -> u8 {
        let input = self.chips[0].acknowledge_request();
        let from_slave = input == CASCADE;
        let vector = if from_slave {
            let input = self.chips[1].acknowledge_request();
            self.chips[1].vector_base | input
        } else {
            self.chips[0].vector_base | input
        };
        self.update();
        vector
    }

    pub fn read(&mut self, port: u16) -> u8 {
        let value = match port {
            MASTER_ELCR | SLAVE_ELCR => self.chips[usize::from(port & 1)].elcr,
            _ => self.chips[chip_of(port)].read(port & 1 != 0),
        };
        self.update();
        value
    }

    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            MASTER_ELCR | SLAVE_ELCR => {
                let chip = usize::from(port & 1);
                self.chips[chip].set_elcr(value & ELCR_WRITABLE[chip]);
            }
            MASTER_DATA | SLAVE_DATA => self.chips[chip_of(port)].write_data(value),
            _ => self.chips[chip_of(port)].write_command(value),
        }
        self.update();
    }
}

fn chip_of(port: u16) -> usize {
    usize::from(matches!(port, SLAVE_COMMAND | SLAVE_DATA))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initialised(icw4: u8) -> Pic {
        let mut pic = Pic::new();
        for (port, base, cascade) in [(0x20, 0x20, 4), (0xA0, 0x28, 2)] {
            pic.write(port, 0x11);
            pic.write(port + 1, base);
            pic.write(port + 1, cascade);
            pic.write(port + 1, icw4);
        }
        pic
    }

    #[test]
    fn the_more_urgent_of_two_lines_comes_first() {
        let mut pic = initialised(1);
        pic.set_line(6, true);
        pic.set_line(1, true);
        assert_eq!(pic.acknowledge(), 0x21);
        assert!(!pic.output());
        pic.write(0x20, 0x20);
        assert!(pic.output());
        assert_eq!(pic.acknowledge(), 0x26);
    }

    #[test]
    fn the_slave_comes_through_input_2() {
        let mut pic = initialised(1);
        pic.set_line(8, true);
        assert_eq!(pic.acknowledge(), 0x28);
        pic.write(0x20, 0x0B);
        assert_eq!(pic.read(0x20), 1 << CASCADE);
        pic.write(0xA0, 0x0B);
        assert_eq!(pic.read(0xA0), 1);
        pic.set_line(9, true);
        assert!(!pic.output());
        pic.write(0xA0, 0x20);
        assert!(!pic.output(), "the master still has input 2 in service");
        pic.write(0x20, 0x20);
        assert_eq!(pic.acknowledge(), 0x29);
    }

    #[test]
    fn special_fully_nested_mode_lets_the_slave_preempt_itself() {
        let mut pic = initialised(0x11);
        pic.set_line(12, true);
        pic.acknowledge();
        pic.set_line(8, true);
        assert!(pic.output());
        assert_eq!(pic.acknowledge(), 0x28);
    }

    #[test]
    fn an_edge_on_a_masked_line_is_latched() {
        let mut pic = initialised(1);
        pic.write(0x21, 0xFF);
        pic.set_line(4, true);
        pic.set_line(4, false);
        assert!(!pic.output() && pic.is_latched(4));
        pic.write(0x21, 0);
        assert_eq!(pic.acknowledge(), 0x24);
    }

    #[test]
    fn a_level_line_requests_while_it_is_high() {
        let mut pic = initialised(1);
        pic.write(0x4D0, 0xFF);
        assert_eq!(pic.read(0x4D0), 0xF8);
        pic.set_line(5, true);
        assert_eq!(pic.acknowledge(), 0x25);
        pic.write(0x20, 0x65);
        assert!(pic.output());
        pic.set_line(5, false);
        assert!(!pic.output());
    }

    #[test]
    fn rotation_makes_the_ended_interrupt_the_least_urgent() {
        let mut pic = initialised(1);
        pic.set_line(3, true);
        pic.acknowledge();
        pic.write(0x20, 0xA0);
        pic.set_line(3, false);
        pic.set_line(3, true);
        pic.set_line(7, true);
        assert_eq!(pic.acknowledge(), 0x27);
    }

    #[test]
    fn auto_eoi_leaves_nothing_in_service() {
        let mut pic = initialised(3);
        pic.set_line(3, true);
        assert_eq!(pic.acknowledge(), 0x23);
        pic.write(0x20, 0x0B);
        assert_eq!(pic.read(0x20), 0);
    }

    #[test]
    fn special_mask_mode_lets_less_urgent_lines_through() {
        let mut pic = initialised(1);
        pic.set_line(1, true);
        pic.acknowledge();
        pic.set_line(5, true);
        assert!(!pic.output());
        pic.write(0x20, 0x68);
        pic.write(0x21, 1 << 1);
        assert!(pic.output());
    }

    #[test]
    fn polling_acknowledges() {
        let mut pic = initialised(1);
        pic.set_line(5, true);
        pic.write(0x20, 0x0C);
        assert_eq!(pic.read(0x20), 0x85);
        pic.write(0x20, 0x0C);
        assert_eq!(pic.read(0x20), 0);
    }

    #[test]
    fn without_a_request_the_interrupt_is_spurious() {
        let mut pic = initialised(1);
        assert_eq!(pic.acknowledge(), 0x27);
        pic.write(0x20, 0x0B);
        assert_eq!(pic.read(0x20), 0);
    }

    #[test]
    fn the_mask_reads_back() {
        let mut pic = initialised(1);
        for mask in [0, 0xFB, 0xFF] {
            pic.write(0xA1, mask);
            assert_eq!(pic.read(0xA1), mask);
        }
    }
}
