//! Where the bytes go that a guest prints.

use std::collections::VecDeque;
use std::io::{self, Write};

/// The most bytes that are kept for somebody to take. A guest that prints without end must not fill the host.
const CAPTURE_LIMIT: usize = 64 << 20;

/// How many of the last bytes are kept besides.
const RECENT_BYTES: usize = 8 << 10;

/// A stream of the host, or a buffer when there is none.
#[derive(Default)]
pub struct Output {
    sink: Option<Box<dyn Write + Send>>,
    captured: Vec<u8>,
    recent: VecDeque<u8>,
    error: Option<io::Error>,
}

impl Output {
    /// Write to `sink` from now on; `None`: keep the bytes.
    pub fn set_sink(&mut self, sink: Option<Box<dyn Write + Send>>) {
        self.sink = sink;
    }

    /// The bytes kept since the last call.
    pub fn take_captured(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.captured)
    }

    /// The last bytes written, whether somebody has taken them or not.
    pub fn recent(&self) -> Vec<u8> {
        self.recent.iter().copied().collect()
    }

    /// The first error since the last call.
    pub fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }

    /// Write one byte, unbuffered. Returns false, and keeps the error, if that fails.
    pub fn put(&mut self, byte: u8) -> bool {
        if self.recent.len() == RECENT_BYTES {
            self.recent.pop_front();
        }
        self.recent.push_back(byte);
        match self.try_put(byte) {
            Ok(()) => true,
            Err(error) => {
                self.error.get_or_insert(error);
                false
            }
        }
    }

    fn try_put(&mut self, byte: u8) -> io::Result<()> {
        match &mut self.sink {
            Some(sink) => {
                sink.write_all(&[byte])?;
                sink.flush()
            }
            None if self.captured.len() < CAPTURE_LIMIT => {
                self.captured.push(byte);
                Ok(())
            }
            None => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("the guest printed {CAPTURE_LIMIT} bytes and nobody took them"),
            )),
        }
    }
}

/// For devices that write to a stream; errors are kept here as well as returned.
impl Write for Output {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        for &byte in buffer {
            if !self.put(byte) {
                return Err(io::Error::other("the guest's output cannot be written"));
            }
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::BrokenPipe))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_first_error_is_kept() {
        let mut output = Output::default();
        output.set_sink(Some(Box::new(Closed)));
        assert!(!output.put(b'a'));
        assert!(!output.put(b'b'));
        assert_eq!(output.take_error().map(|error| error.kind()), Some(io::ErrorKind::BrokenPipe));
        assert!(output.take_error().is_none());
    }

    #[test]
    fn without_a_sink_the_bytes_are_kept() {
        let mut output = Output::default();
        assert!(output.put(b'a'));
        assert_eq!(output.take_captured(), b"a");
        assert!(output.take_captured().is_empty());
        assert_eq!(output.recent(), b"a");
    }

    #[test]
    fn the_last_bytes_are_kept_and_no_more() {
        let mut output = Output::default();
        output.set_sink(Some(Box::new(io::sink())));
        for number in 0..=RECENT_BYTES {
            output.put(number as u8);
        }
        let recent = output.recent();
        assert_eq!((recent.len(), recent[0]), (RECENT_BYTES, 1));
    }
}
