//! What a problem costs at least: the work and the traffic that every report divides by.

use std::ops::Add;

/// The work of a problem, each operand element counted once: the numbers behind GFLOP/s, GB/s and the roofline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations (a multiply-add is two). Masked-out products are not counted.
    pub flops: u64,
    /// Bytes of operands read.
    pub bytes_read: u64,
    /// Bytes of results written.
    pub bytes_written: u64,
}

impl Cost {
    /// Bytes in both directions.
    pub fn bytes(&self) -> u64 {
        self.bytes_read + self.bytes_written
    }
}

impl Add for Cost {
    type Output = Cost;
    fn add(self, o: Cost) -> Cost {
        Cost {
            flops: self.flops + o.flops,
            bytes_read: self.bytes_read + o.bytes_read,
            bytes_written: self.bytes_written + o.bytes_written,
        }
    }
}
