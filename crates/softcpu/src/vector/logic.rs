//! Bitwise logic: the same for integers and for floating-point numbers.

use super::lanewise::kernels;

kernels! {
    And |a, b, _| [a[0] & b[0], a[1] & b[1]];
    Andn |a, b, _| [!a[0] & b[0], !a[1] & b[1]];
    Or |a, b, _| [a[0] | b[0], a[1] | b[1]];
    Xor |a, b, _| [a[0] ^ b[0], a[1] ^ b[1]];
}
