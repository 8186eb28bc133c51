//! A walk through the bytes of a header, which never leaves them.

use std::ops::Range;

/// A place in a file.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// The place, in bytes from the start of the file.
    pub fn at(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `count` bytes; `what` they are, for messages.
    pub fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], String> {
        let range = self.skip(count, what)?;
        Ok(&self.bytes[range])
    }

    /// Where the next `count` bytes lie, which are passed.
    pub fn skip(&mut self, count: usize, what: &str) -> Result<Range<usize>, String> {
        if count > self.left() {
            let (at, left) = (self.at, self.left());
            return Err(format!("{what} takes {count} bytes at byte {at} of the file, where {left} are left"));
        }
        let range = self.at..self.at + count;
        self.at = range.end;
        Ok(range)
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, String> {
        let bytes = self.take(4, what)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four were taken")))
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, String> {
        let bytes = self.take(8, what)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight were taken")))
    }

    /// A number of things that take `least` bytes each, if there are enough bytes for them.
    pub fn fits(&self, count: u64, least: usize, what: &str) -> Result<usize, String> {
        let room = self.left() / least;
        usize::try_from(count).ok().filter(|&count| count <= room).ok_or_else(|| {
            format!("{count} {what} are announced at byte {} of the file, where there is room for {room}", self.at)
        })
    }

    /// Where the bytes of a text lie, which is passed with its length.
    pub fn skip_text(&mut self, what: &str) -> Result<Range<usize>, String> {
        let length = self.u64(what)?;
        let length = self.fits(length, 1, "bytes of text")?;
        self.skip(length, what)
    }

    /// A text.
    pub fn text(&mut self, what: &str) -> Result<&'a str, String> {
        let range = self.skip_text(what)?;
        let start = range.start;
        str::from_utf8(&self.bytes[range])
            .map_err(|e| format!("{what} is not UTF-8 at byte {} of the file", start + e.valid_up_to()))
    }
}
