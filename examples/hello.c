/*
 * Detect KVM and make hypercalls with the instructions of both vendors. Whatever the host is, one of them is foreign to
 * it; the guest need not know which.
 */
#include <paravirt.h>

#define KVM_HC_VAPIC_POLL_IRQ 1 /* does nothing and returns 0 */
#define UNKNOWN_CALL 12345      /* KVM says -1000, KVM_ENOSYS */

int main(void)
{
    struct pv_hypervisor kvm;

    if (!pv_find_hypervisor("KVMKVMKVM", &kvm)) {
        pv_printf("no KVM here\n");
        return 1;
    }
    pv_printf("hello from %d-bit code on %s\n", (int)sizeof(long) * 8,
              pv_vendor_is("GenuineIntel") ? "an Intel CPU" : "an AMD CPU");
    pv_printf("%s at CPUID leaf %x, features %x\n", kvm.signature, kvm.base, pv_cpuid(kvm.base + 1, 0).eax);

    pv_printf("vmcall : call 1 returns %ld\n", pv_vmcall0(KVM_HC_VAPIC_POLL_IRQ));
    pv_printf("vmmcall: call 1 returns %ld\n", pv_vmmcall0(KVM_HC_VAPIC_POLL_IRQ));
    pv_printf("vmcall : an unknown call returns %ld\n", pv_vmcall0(UNKNOWN_CALL));
    pv_printf("vmmcall: an unknown call returns %ld\n", pv_vmmcall0(UNKNOWN_CALL));
    return 0;
}
