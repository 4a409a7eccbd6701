//! The guest's CPUID table.

/// One leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuidEntry {
    /// EAX of the question.
    pub leaf: u32,
    /// ECX of the question; `None`: whatever it is.
    pub subleaf: Option<u32>,
    /// EAX, EBX, ECX, EDX of the answer.
    pub registers: [u32; 4],
}

/// All leaves.
#[derive(Clone, Debug, Default)]
pub struct CpuidTable {
    entries: Vec<CpuidEntry>,
}

impl CpuidTable {
    /// What the CPU's behaviour depends on.
    pub fn features(&self) -> crate::features::Features {
        crate::features::Features::default()
    }

    /// Leaf 1 EAX: family, model, stepping.
    pub fn signature(&self) -> u32 {
        self.entries.iter().find(|entry| entry.leaf == 1).map_or(0, |entry| entry.registers[0])
    }
}
