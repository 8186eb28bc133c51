// The class of each row, as `ops::labels` has it. Needs faults.wgsl; the parameters hold `classes: u32`, the number of
// classes, and `ignore: u32`, the bits of the label to ignore.

// Whether labels are i32 (else u32), and whether one of those that are not negative is to be ignored.
override labels_signed: bool = true;
override ignores: bool = false;

// Whether a row with this label counts. `tell`: whether the invocation reports a label that is beyond the classes; such a
// row does not count.
fn counts(label: u32, row: u32, tell: bool) -> bool {
    if (labels_signed && bitcast<i32>(label) < 0) || (ignores && label == p.ignore) { return false; }
    if label < p.classes { return true; }
    if tell { fault(label, row, p.classes); }
    return false;
}
