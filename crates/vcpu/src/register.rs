//! Registers by name, for whoever looks from outside.

/// The mode that decides how instructions are decoded and how wide a hypercall's registers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuMode {
    /// Real mode.
    Real,
    /// Virtual-8086 mode.
    Virtual8086,
    /// Protected mode, 16-bit code segment.
    Protected16,
    /// Protected mode, 32-bit code segment.
    Protected32,
    /// Long mode, 16-bit code segment.
    Compatibility16,
    /// Long mode, 32-bit code segment.
    Compatibility32,
    /// 64-bit mode.
    Long64,
}

macro_rules! registers {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// A register that a debugger or a hypervisor reads and writes as one number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names are the manual's")]
        #[repr(u8)]
        pub enum Register { $($variant),* }

        impl Register {
            /// Every register, in the order of their numbers.
            pub const ALL: &'static [Register] = &[$(Register::$variant),*];

            /// The manual's name in lower case.
            pub fn name(self) -> &'static str {
                match self { $(Register::$variant => $name),* }
            }
        }
    };
}

registers! {
    Rax = "rax", Rcx = "rcx", Rdx = "rdx", Rbx = "rbx", Rsp = "rsp", Rbp = "rbp", Rsi = "rsi", Rdi = "rdi",
    R8 = "r8", R9 = "r9", R10 = "r10", R11 = "r11", R12 = "r12", R13 = "r13", R14 = "r14", R15 = "r15",
    Rip = "rip", Rflags = "rflags",
    Es = "es", Cs = "cs", Ss = "ss", Ds = "ds", Fs = "fs", Gs = "gs", Ldtr = "ldtr", Tr = "tr",
    EsBase = "es_base", CsBase = "cs_base", SsBase = "ss_base", DsBase = "ds_base", FsBase = "fs_base",
    GsBase = "gs_base", LdtrBase = "ldtr_base", TrBase = "tr_base",
    EsLimit = "es_limit", CsLimit = "cs_limit", SsLimit = "ss_limit", DsLimit = "ds_limit", FsLimit = "fs_limit",
    GsLimit = "gs_limit", LdtrLimit = "ldtr_limit", TrLimit = "tr_limit",
    EsAttributes = "es_attributes", CsAttributes = "cs_attributes", SsAttributes = "ss_attributes",
    DsAttributes = "ds_attributes", FsAttributes = "fs_attributes", GsAttributes = "gs_attributes",
    LdtrAttributes = "ldtr_attributes", TrAttributes = "tr_attributes",
    GdtrBase = "gdtr_base", GdtrLimit = "gdtr_limit", IdtrBase = "idtr_base", IdtrLimit = "idtr_limit",
    Cr0 = "cr0", Cr2 = "cr2", Cr3 = "cr3", Cr4 = "cr4", Cr8 = "cr8", Efer = "efer", Xcr0 = "xcr0", Pkru = "pkru",
    Fcw = "fcw", Fsw = "fsw", Ftw = "ftw", Mxcsr = "mxcsr",
    Dr0 = "dr0", Dr1 = "dr1", Dr2 = "dr2", Dr3 = "dr3", Dr6 = "dr6", Dr7 = "dr7",
}
