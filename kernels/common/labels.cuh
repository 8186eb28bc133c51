// The class of each row, as src/ops/labels.rs has it.
#pragma once
#include "common/base.cuh"

struct Labels {
    // u32, or i32 if `is_signed`.
    const u32 *labels;
    u32 classes, is_signed;
    // Whether one of the labels that are not negative is to be ignored, and which.
    u32 ignores, ignore;

    // Whether a row with this label counts. `tell`: whether the thread reports a label that is beyond the classes; such a row
    // does not count.
    DEVICE bool counts(u32 label, u32 row, bool tell, Faults *faults, u32 fault_op) const {
        if ((is_signed && (i32)label < 0) || (ignores && label == ignore)) return false;
        if (label < classes) return true;
        if (tell) fault(faults, fault_op, label, row, classes);
        return false;
    }
};
