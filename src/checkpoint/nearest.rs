//! Which names come close to one that is missing.

/// Longer names are compared by their ends only: names differ in front and agree at the back.
const LONGEST: usize = 256;
/// So many names, chosen by common ends, are compared in full.
const FINALISTS: usize = 64;

/// The up to three nearest of `names`, best first. Costs one walk over all names and [`FINALISTS`] edit distances.
pub(super) fn nearest<'a>(want: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<(usize, &str)> = names.map(|name| (common_ends(want, name), name)).collect();
    names.sort_by_key(|&(common, name)| (std::cmp::Reverse(common), name));
    names.truncate(FINALISTS);
    let mut ranked: Vec<(usize, &str)> = names.into_iter().map(|(_, name)| (distance(want, name), name)).collect();
    ranked.sort();
    ranked.into_iter().take(3).map(|(_, name)| name.into()).collect()
}

/// The bytes that two names have in common at the front and at the back.
fn common_ends(a: &str, b: &str) -> usize {
    let front = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let back = a.bytes().rev().zip(b.bytes().rev()).take_while(|(a, b)| a == b).count();
    (front + back).min(a.len()).min(b.len())
}

/// The number of components in front, if one name is the other under a prefix; else the edit distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let (long, short) = if a.len() > b.len() { (a, b) } else { (b, a) };
    if let Some(prefix) = long.strip_suffix(short).and_then(|front| front.strip_suffix('.')) {
        return 1 + prefix.matches('.').count();
    }
    let tail = |s: &str| s.as_bytes()[s.len().saturating_sub(LONGEST)..].to_vec();
    let (a, b) = (tail(a), tail(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_and_prefixes_are_near() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("norm.weight", "model.text.norm.weight"), 2);
        let names = ["vit.norm.weight", "vit.norm.bias", "head.bias", "vit.form.weight"];
        assert_eq!(nearest("norm.weight", names.into_iter())[0], "vit.norm.weight");
        assert_eq!(nearest("vit.norm.weigth", names.into_iter())[..2], ["vit.norm.weight", "vit.form.weight"]);
        assert!(nearest("x", std::iter::empty()).is_empty());
    }
}
