//! Lines of a kernel's own that somebody waits for on the console.
//!
//! Only what is sent with the port's interrupts switched off counts: so a kernel prints its messages, which must get out
//! whatever state it is in, while programs' output goes through a driver that sends by interrupt. A program that prints the
//! same words (an old log, say) is not mistaken for the kernel.

/// The longest beginning of a line that is looked at.
const LINE_LIMIT: usize = 256;
/// The most digits and blanks of a timestamp, brackets included, as in `[    1.983767] `.
const TIMESTAMP_LIMIT: usize = 32;

/// Which texts are waited for, and the line so far.
#[derive(Default)]
pub struct ConsoleWatch {
    texts: Vec<Vec<u8>>,
    line: Vec<u8>,
}

impl ConsoleWatch {
    /// Wait for lines that begin with one of these, from now on.
    pub fn set_texts(&mut self, texts: Vec<Vec<u8>>) {
        *self = Self { texts, line: Vec::new() };
    }

    /// The kernel sends a byte. The number of the text with which the line begins that ends here.
    pub fn note(&mut self, byte: u8) -> Option<usize> {
        if self.texts.is_empty() {
            return None;
        }
        if byte == b'\n' {
            let found = self.texts.iter().position(|text| without_timestamp(&self.line).starts_with(text));
            self.line.clear();
            return found;
        }
        if self.line.len() < LINE_LIMIT {
            self.line.push(byte);
        }
        None
    }
}

/// The line behind what stands in brackets at its start.
fn without_timestamp(line: &[u8]) -> &[u8] {
    let end = line.iter().take(TIMESTAMP_LIMIT).position(|&byte| byte == b']');
    match end {
        Some(end) if line.first() == Some(&b'[') => line[end + 1..].trim_ascii_start(),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    fn found(texts: &[&str], output: &str) -> Vec<usize> {
        let mut watch = ConsoleWatch::default();
        watch.set_texts(texts.iter().map(|text| text.as_bytes().to_vec()).collect());
        output.bytes().filter_map(|byte| watch.note(byte)).collect()
    }

    #[test]
    fn a_line_counts_once_it_ends_with_and_without_a_timestamp() {
        assert_eq!(found(&["panic"], "panic: no init\r\n"), [0]);
        assert_eq!(found(&["panic"], "[    1.983767] panic: no init\r\n"), [0]);
        assert_eq!(found(&["panic"], "panic: no init"), NONE);
        assert_eq!(found(&["a", "b"], "b\na\nc\nb\n"), [1, 0, 1]);
    }

    #[test]
    fn words_within_a_line_do_not_count() {
        assert_eq!(found(&["panic"], "no panic\n[ panic ] at the disco\n"), NONE);
        assert_eq!(found(&["panic"], &format!("[{}] panic\n", "0".repeat(TIMESTAMP_LIMIT))), NONE);
    }

    #[test]
    fn a_line_without_end_costs_no_memory() {
        let mut watch = ConsoleWatch::default();
        watch.set_texts(vec![b"x".to_vec()]);
        for _ in 0..10 * LINE_LIMIT {
            assert_eq!(watch.note(b'x'), None);
        }
        assert_eq!(watch.line.len(), LINE_LIMIT);
        assert_eq!(watch.note(b'\n'), Some(0));
    }
}
