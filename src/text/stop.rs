//! Stop strings in text that comes in pieces.

/// Finds the first of some strings, holding back what may be the beginning of one.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
    found: bool,
}

impl StopStrings {
    /// Empty strings are ignored.
    pub fn new(stops: impl IntoIterator<Item = String>) -> StopStrings {
        let stops = stops.into_iter().filter(|s| !s.is_empty()).collect();
        StopStrings { stops, ..StopStrings::default() }
    }

    /// Takes the next piece and gives what may be shown. Once a string was found, nothing more comes.
    pub fn push(&mut self, piece: &str) -> String {
        if self.found {
            return String::new();
        }
        self.held.push_str(piece);
        let first = self.stops.iter().filter_map(|s| self.held.find(s.as_str())).min();
        if let Some(at) = first {
            self.found = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let longest = self.stops.iter().map(|s| open_end(&self.held, s)).max().unwrap_or(0);
        let kept = self.held.split_off(self.held.len() - longest);
        std::mem::replace(&mut self.held, kept)
    }

    /// Whether one of the strings came.
    pub fn found(&self) -> bool {
        self.found
    }

    /// What was held back and turned out to be the beginning of nothing.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// The longest end of `text`, in bytes, with which `stop` begins.
fn open_end(text: &str, stop: &str) -> usize {
    let ends = text.char_indices().map(|(at, _)| text.len() - at).filter(|&len| len < stop.len());
    ends.filter(|&len| stop.starts_with(&text[text.len() - len..])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_found_across_pieces() {
        let mut stops = StopStrings::new(["</s>".to_string(), "äb".to_string(), String::new()]);
        assert_eq!(stops.push("one <"), "one ");
        assert_eq!(stops.push("/x"), "</x");
        assert_eq!(stops.push(" ä"), " ");
        assert_eq!(stops.push("ä</"), "ää");
        assert_eq!(stops.push("s> more"), "");
        assert!(stops.found());
        assert_eq!(stops.push("x") + &stops.finish(), "");
    }

    #[test]
    fn what_was_held_comes_at_the_end() {
        let mut stops = StopStrings::new(["END".to_string()]);
        assert_eq!(stops.push("the EN"), "the ");
        assert_eq!(stops.finish(), "EN");
        let mut none = StopStrings::new([]);
        assert_eq!(none.push("all of it"), "all of it");
    }
}
