//! The rules that one local APIC follows by itself.

use x86defs::msr::{APIC_BASE_BSP, APIC_BASE_ENABLE, APIC_BASE_EXTD};

use super::*;

const BASE: u64 = 0xFEE0_0000 | APIC_BASE_BSP;
const OFF: u64 = BASE;
const XAPIC: u64 = BASE | APIC_BASE_ENABLE;
const X2APIC: u64 = XAPIC | APIC_BASE_EXTD;
const INVALID: u64 = BASE | APIC_BASE_EXTD;

fn reset_apic() -> LocalApic {
    LocalApic::new(0, Clock::new(1_000_000), ApicFeatures::default())
}

/// Enabled by software, in xAPIC mode.
fn enabled() -> LocalApic {
    let mut apic = reset_apic();
    set(&mut apic, SVR, 0x1FF);
    apic
}

fn x2apic() -> LocalApic {
    let mut apic = enabled();
    apic.set_base(X2APIC).unwrap();
    apic
}

fn set(apic: &mut LocalApic, offset: u32, value: u32) -> Effect {
    apic.mmio_write(offset, 4, value.into(), 0)
}

fn get(apic: &mut LocalApic, offset: u32) -> u32 {
    apic.mmio_read(offset, 4, 0) as u32
}

#[test]
fn base_allows_only_the_transitions_of_figure_12_27() {
    for (from, to, allowed) in [
        (OFF, OFF, true),
        (OFF, XAPIC, true),
        (OFF, X2APIC, false),
        (OFF, INVALID, false),
        (XAPIC, OFF, true),
        (XAPIC, XAPIC, true),
        (XAPIC, X2APIC, true),
        (XAPIC, INVALID, false),
        (X2APIC, OFF, true),
        (X2APIC, XAPIC, false),
        (X2APIC, X2APIC, true),
        (X2APIC, INVALID, false),
    ] {
        let mut apic = reset_apic();
        if from == X2APIC {
            apic.set_base(X2APIC).unwrap();
        } else {
            apic.set_base(from).unwrap();
        }
        assert_eq!(apic.set_base(to).is_ok(), allowed, "{from:#x} to {to:#x}");
        assert_eq!(apic.base(), if allowed { to } else { from });
    }
}

#[test]
fn base_refuses_reserved_bits() {
    let mut apic = reset_apic();
    for bit in (0..8).chain([9, 36, 37, 51, 52, 63]) {
        assert_eq!(apic.set_base(XAPIC | 1 << bit), Err(Refused), "bit {bit}");
    }
    apic.set_features(ApicFeatures { x2apic: false, ..ApicFeatures::default() });
    assert_eq!(apic.set_base(X2APIC), Err(Refused));
    apic.set_features(ApicFeatures { physical_address_bits: 52, ..ApicFeatures::default() });
    assert_eq!(apic.set_base(XAPIC | 1 << 51), Ok(()));
    assert_eq!(apic.page(), Some(1 << 51 | 0xFEE0_0000));
}

#[test]
fn only_xapic_mode_has_a_page() {
    let mut apic = reset_apic();
    assert_eq!(apic.page(), Some(0xFEE0_0000));
    apic.set_base(X2APIC).unwrap();
    assert_eq!(apic.page(), None);
    apic.set_base(OFF).unwrap();
    assert_eq!(apic.page(), None);
}

#[test]
fn switching_off_and_on_resets() {
    let mut apic = enabled();
    set(&mut apic, ID, 7 << 24);
    set(&mut apic, TPR, 0x50);
    apic.set_base(OFF).unwrap();
    apic.set_base(XAPIC).unwrap();
    assert_eq!([ID, TPR, SVR, LVT_TIMER].map(|offset| get(&mut apic, offset)), [0, 0, 0xFF, LVT_MASKED]);
}

/// SDM vol. 3 table 12-6, as (offset, readable, bits that WRMSR accepts; `None`: not writable).
const X2APIC_REGISTERS: &[(u32, bool, Option<u64>)] = &[
    (ID, true, None),
    (VERSION, true, None),
    (TPR, true, Some(0xFF)),
    (PPR, true, None),
    (EOI, false, Some(0)),
    (LDR, true, None),
    (SVR, true, Some(0x13FF)),
    (ESR, true, Some(0)),
    (ICR, true, Some(0xFFFF_FFFF_000C_DFFF)),
    (LVT_TIMER, true, Some(0x0007_50FF)),
    (LVT_THERMAL, true, Some(0x0001_57FF)),
    (LVT_PERFORMANCE, true, Some(0x0001_57FF)),
    (LVT_LINT0, true, Some(0x0001_F7FF)),
    (LVT_LINT1, true, Some(0x0001_F7FF)),
    (LVT_ERROR, true, Some(0x0001_50FF)),
    (INITIAL_COUNT, true, Some(0xFFFF_FFFF)),
    (CURRENT_COUNT, true, None),
    (DIVIDE, true, Some(0xB)),
    (SELF_IPI, false, Some(0xFF)),
];

fn x2apic_rule(offset: u32) -> (bool, Option<u64>) {
    if (ISR..=IRR_LAST).contains(&offset) {
        return (true, None);
    }
    let row = X2APIC_REGISTERS.iter().find(|row| row.0 == offset);
    row.map_or((false, None), |&(_, readable, writable)| (readable, writable))
}

#[test]
fn x2apic_msrs_fault_exactly_where_the_manual_says() {
    for index in 0x800..=0x8FF {
        let (readable, writable) = x2apic_rule((index - 0x800) * 0x10);
        assert_eq!(x2apic().x2apic_read(index, 0).is_ok(), readable, "RDMSR {index:#x}");
        assert_eq!(x2apic().x2apic_write(index, 0, 0).is_ok(), writable.is_some(), "WRMSR {index:#x}");
        for bit in 0..64 {
            let accepted = writable.is_some_and(|bits| bits & 1 << bit != 0);
            assert_eq!(x2apic().x2apic_write(index, 1 << bit, 0).is_ok(), accepted, "WRMSR {index:#x}, bit {bit}");
        }
    }
}

#[test]
fn x2apic_msrs_fault_in_other_modes() {
    let mut off = enabled();
    off.set_base(OFF).unwrap();
    for index in 0x800..=0x8FF {
        for apic in [&mut enabled(), &mut off] {
            assert_eq!(apic.x2apic_read(index, 0), Err(Refused));
            assert_eq!(apic.x2apic_write(index, 0, 0), Err(Refused));
        }
    }
}

#[test]
fn the_x2apic_ids_derive_from_the_number_of_the_processor() {
    let mut apic = LocalApic::new(0x25, Clock::new(1), ApicFeatures::default());
    assert_eq!(get(&mut apic, ID), 0x2500_0000);
    apic.set_base(apic.base() | APIC_BASE_EXTD).unwrap();
    assert_eq!(apic.x2apic_read(0x802, 0), Ok(0x25));
    assert_eq!(apic.x2apic_read(0x80D, 0), Ok(2 << 16 | 1 << 5));
}

#[test]
fn registers_answer_only_to_aligned_words() {
    let mut apic = enabled();
    assert_eq!(apic.mmio_read(VERSION, 1, 0), 0x14);
    assert_eq!(apic.mmio_read(VERSION + 2, 1, 0), 5);
    assert_eq!(apic.mmio_read(VERSION + 4, 4, 0), 0);
    apic.mmio_write(TPR, 1, 0x55, 0);
    apic.mmio_write(TPR + 4, 4, 0x55, 0);
    assert_eq!(apic.tpr(), 0);
    assert_eq!(apic.mmio_read(0xFFF, 8, 0), 0);
}

#[test]
fn a_register_that_does_not_exist_is_an_error() {
    let mut apic = enabled();
    get(&mut apic, SELF_IPI);
    assert_eq!(get(&mut apic, ESR), 0);
    set(&mut apic, ESR, 0);
    assert_eq!(get(&mut apic, ESR), ESR_ILLEGAL_REGISTER);
    set(&mut apic, ESR, 0);
    assert_eq!(get(&mut apic, ESR), 0);
}

#[test]
fn an_error_reported_by_an_illegal_vector_is_one_more_error() {
    let mut apic = enabled();
    set(&mut apic, LVT_ERROR, 0x0F);
    set(&mut apic, ICR, 0x4000F);
    assert_eq!(apic.deliverable(), None);
    set(&mut apic, ESR, 0);
    assert_eq!(get(&mut apic, ESR), ESR_SEND_ILLEGAL_VECTOR | ESR_RECEIVE_ILLEGAL_VECTOR);
}

#[test]
fn a_vector_below_16_is_an_error_and_interrupts_once() {
    let mut apic = enabled();
    set(&mut apic, LVT_ERROR, 0x33);
    assert_eq!(set(&mut apic, ICR, 0x4000F), Effect::None);
    assert_eq!(apic.deliverable(), Some(0x33));
    apic.acknowledge(0);
    apic.end_of_interrupt();
    set(&mut apic, ICR, 0x4000F);
    assert_eq!(apic.deliverable(), None);
    apic.accept(15, false);
    set(&mut apic, ESR, 0);
    assert_eq!(get(&mut apic, ESR), ESR_SEND_ILLEGAL_VECTOR | ESR_RECEIVE_ILLEGAL_VECTOR);
}

#[test]
fn only_a_higher_class_interrupts() {
    let mut apic = enabled();
    apic.accept(0x55, false);
    assert_eq!(apic.acknowledge(0), Some(0x55));
    assert_eq!(get(&mut apic, PPR), 0x50);
    apic.accept(0x5F, false);
    assert_eq!(apic.deliverable(), None);
    apic.accept(0x60, false);
    assert_eq!(apic.deliverable(), Some(0x60));
    set(&mut apic, TPR, 0x63);
    assert_eq!(get(&mut apic, PPR), 0x63);
    assert_eq!(apic.deliverable(), None);
}

#[test]
fn eoi_ends_the_highest_and_broadcasts_a_level() {
    let mut apic = enabled();
    apic.accept(0x30, true);
    apic.acknowledge(0);
    apic.accept(0x40, false);
    apic.acknowledge(0);
    assert_eq!(get(&mut apic, ISR + 0x10), 1 << 16);
    assert_eq!(set(&mut apic, EOI, 0), Effect::None);
    assert_eq!(set(&mut apic, EOI, 0), Effect::EoiBroadcast(0x30));
    assert_eq!(set(&mut apic, EOI, 0), Effect::None);
}

#[test]
fn the_broadcast_can_be_suppressed() {
    let mut apic = enabled();
    set(&mut apic, SVR, 0x1FF | SVR_SUPPRESS_EOI_BROADCAST);
    apic.accept(0x30, true);
    apic.acknowledge(0);
    assert_eq!(set(&mut apic, EOI, 0), Effect::None);
}

#[test]
fn the_trigger_mode_is_that_of_the_last_interrupt_accepted() {
    let mut apic = enabled();
    apic.accept(0x79, true);
    assert_ne!(get(&mut apic, TMR + 0x30) & 1 << 25, 0);
    apic.accept(0x79, false);
    assert_eq!(get(&mut apic, TMR + 0x30) & 1 << 25, 0);
}

#[test]
fn disabled_by_software_it_masks_its_table_and_accepts_nothing_new() {
    let mut apic = enabled();
    set(&mut apic, LVT_LINT0, 0x700);
    apic.accept(0x40, false);
    set(&mut apic, SVR, 0xFF);
    assert_eq!(get(&mut apic, LVT_LINT0), LVT_MASKED | 0x700);
    set(&mut apic, LVT_LINT0, 0x700);
    assert_eq!(get(&mut apic, LVT_LINT0), LVT_MASKED | 0x700);
    assert!(!apic.accept(0x50, false));
    assert_eq!(apic.deliverable(), Some(0x40), "what was requested before stays");
}

#[test]
fn init_keeps_id_and_base() {
    let mut apic = enabled();
    set(&mut apic, ID, 3 << 24);
    apic.set_base(0x1000 | APIC_BASE_ENABLE).unwrap();
    apic.init();
    assert_eq!((apic.id(), apic.page()), (3, Some(0x1000)));
    assert_eq!(get(&mut apic, SVR), 0xFF);
}

#[test]
fn a_timer_whose_interrupt_changes_nothing_wakes_nobody() {
    let mut apic = enabled();
    set(&mut apic, DIVIDE, 0xB);
    set(&mut apic, LVT_TIMER, LVT_TIMER_PERIODIC | 0x40);
    set(&mut apic, INITIAL_COUNT, 1);
    assert_eq!(apic.next_event_ns(), Some(1));
    apic.expire_timer(10);
    assert_eq!(apic.next_event_ns(), None, "requested already");
    assert_eq!(apic.acknowledge(10), Some(0x40));
    assert_eq!(apic.next_event_ns(), Some(11));
    set(&mut apic, LVT_TIMER, LVT_MASKED | LVT_TIMER_PERIODIC | 0x40);
    assert_eq!(apic.next_event_ns(), None, "masked");
}

#[test]
fn a_timer_with_an_illegal_vector_reports_it_once() {
    let mut apic = enabled();
    set(&mut apic, DIVIDE, 0xB);
    set(&mut apic, LVT_TIMER, LVT_TIMER_PERIODIC | 5);
    set(&mut apic, INITIAL_COUNT, 1);
    assert_eq!(apic.next_event_ns(), Some(1));
    apic.expire_timer(1);
    assert_eq!(apic.next_event_ns(), None);
}

#[test]
fn the_deadline_msr_belongs_to_its_feature_and_mode() {
    let mut apic = enabled();
    assert_eq!(apic.set_tsc_deadline(100, 0), Ok(()));
    assert_eq!(apic.tsc_deadline(0), Ok(0), "not in deadline mode");
    set(&mut apic, LVT_TIMER, LVT_TIMER_TSC_DEADLINE | 0x40);
    apic.set_tsc_deadline(100, 0).unwrap();
    assert_eq!(apic.tsc_deadline(99), Ok(100));
    assert_eq!(apic.tsc_deadline(100), Ok(0));
    assert_eq!(apic.deliverable(), Some(0x40));
    set(&mut apic, INITIAL_COUNT, 5);
    assert_eq!(get(&mut apic, INITIAL_COUNT), 0);
    apic.set_features(ApicFeatures { tsc_deadline: false, ..ApicFeatures::default() });
    assert_eq!(apic.tsc_deadline(0), Err(Refused));
    assert_eq!(apic.set_tsc_deadline(0, 0), Err(Refused));
    set(&mut apic, LVT_TIMER, LVT_TIMER_TSC_DEADLINE | 0x40);
    assert_eq!(get(&mut apic, LVT_TIMER), 0x40);
}

#[test]
fn a_deadline_in_the_past_interrupts_at_once() {
    let mut apic = enabled();
    set(&mut apic, LVT_TIMER, LVT_TIMER_TSC_DEADLINE | 0x40);
    apic.set_tsc_deadline(50, 50).unwrap();
    assert_eq!(apic.deliverable(), Some(0x40));
    assert_eq!(apic.tsc_deadline(50), Ok(0));
}

#[test]
fn logical_destinations() {
    let mut apic = enabled();
    set(&mut apic, LDR, 0x24 << 24);
    let matches = |apic: &LocalApic, id| Destination::narrow(id, true).includes(0, apic);
    assert!(matches(&apic, 0x04) && matches(&apic, 0x20) && matches(&apic, 0xFF) && !matches(&apic, 0x42 & 0x11));
    // Cluster 2, members 2.
    set(&mut apic, DFR, 0x0FFF_FFFF);
    assert!(matches(&apic, 0x24) && matches(&apic, 0x2F) && matches(&apic, 0xFF));
    assert!(!matches(&apic, 0x04) && !matches(&apic, 0x34) && !matches(&apic, 0x23));
    let apic = x2apic();
    assert!(matches(&apic, 0x01) && !matches(&apic, 0x02));
    assert!(Destination::wide(0x0000_0001, true).includes(0, &apic));
    assert!(!Destination::wide(0x0001_0001, true).includes(0, &apic));
}

#[test]
fn shorthands_and_init_deassert() {
    let decode = |low| message::decode_icr(low, Destination::Physical(9), 3).map(|message| message.destination);
    assert_eq!(decode(0x0_4030), Some(Destination::Physical(9)));
    assert_eq!(decode(0x4_4030), Some(Destination::Only(3)));
    assert_eq!(decode(0x8_4030), Some(Destination::All));
    assert_eq!(decode(0xC_4030), Some(Destination::AllBut(3)));
    assert_eq!(decode(0x0_8500), None);
    assert_eq!(decode(0x0_C500), Some(Destination::Physical(9)));
}

#[test]
fn the_8259_reaches_the_processor_through_lint0_or_past_a_disabled_apic() {
    let mut apic = enabled();
    assert!(!apic.passes_extint());
    apic.set_virtual_wire();
    assert!(apic.passes_extint());
    set(&mut apic, LVT_LINT0, LVT_MASKED | 0x700);
    assert!(!apic.passes_extint());
    apic.set_base(OFF).unwrap();
    assert!(apic.passes_extint());
    let mut other = LocalApic::new(1, Clock::new(1), ApicFeatures::default());
    other.set_base(0xFEE0_0000).unwrap();
    assert!(!other.passes_extint());
}

#[test]
fn a_performance_counter_interrupts_once_until_it_is_unmasked() {
    let mut apic = enabled();
    set(&mut apic, LVT_PERFORMANCE, 0x55);
    apic.signal_pin(LocalPin::Performance);
    assert_eq!(apic.deliverable(), Some(0x55));
    assert_eq!(get(&mut apic, LVT_PERFORMANCE), LVT_MASKED | 0x55);
    set(&mut apic, LVT_PERFORMANCE, 0x400);
    assert_eq!(apic.signal_pin(LocalPin::Performance), LocalSignal::Nmi);
    assert_eq!(apic.signal_pin(LocalPin::Performance), LocalSignal::Done, "masked");
}
