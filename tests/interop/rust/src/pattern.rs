//! The deterministic bytes that all peers send, and their digest.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// A prime: data shifted by a window or a frame is found out.
const PERIOD: usize = 65521;

/// `length` bytes of the endless pattern, from `offset` on.
pub fn pattern(offset: usize, length: usize) -> Vec<u8> {
    (offset..offset + length)
        .map(|at| {
            let i = at % PERIOD;
            (i * 7 + (i >> 8)) as u8
        })
        .collect()
}

/// A SHA-256 in hexadecimal, fed piece by piece.
#[derive(Default)]
pub struct Sum(Sha256);

impl Sum {
    pub fn add(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    pub fn hex(self) -> String {
        self.0
            .finalize()
            .iter()
            .fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
    }
}

pub fn digest(data: &[u8]) -> String {
    let mut sum = Sum::default();
    sum.add(data);
    sum.hex()
}
