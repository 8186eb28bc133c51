//! The gradients of both row normalisations: one kernel over the rows, and what is left to do for the groups.

use super::{BIAS, Norm, OUT, RESIDUAL, SCALE, SHIFT, SUM, WEIGHT, X};
use crate::error::Result;
use crate::ops::elementwise::{mul, mul_add};
use crate::ops::{Saved, norm_bwd, reduce};
use crate::tensor::Tensor;

pub(in crate::ops) fn grad<O>(n: &Norm, saved: &Saved<O>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let mut found = vec![None; 6];
    let dsum = grads[SUM].as_ref();
    let Some(dout) = &grads[OUT] else {
        (found[X], found[RESIDUAL]) = (dsum.cloned(), dsum.cloned());
        return Ok(found);
    };
    let (weight, scale) = (saved.inputs[WEIGHT].as_ref(), saved.inputs[SCALE].as_ref());
    let x = if n.residual { saved.output(SUM) } else { saved.input(X) };
    let wanted = norm_bwd::Wanted {
        products: saved.needs(WEIGHT) || saved.needs(SCALE),
        sums: saved.needs(BIAS) || saved.needs(SHIFT) || (n.bias && saved.needs(SCALE)),
    };
    let (dx, products, sums) = norm_bwd::norm_bwd(x, dout, weight, scale, dsum, n.eps.0, n.centred, wanted)?;
    (found[X], found[RESIDUAL]) = (Some(dx.clone()), Some(dx));
    // Of the groups' sums with the factor that came after, those over all rows.
    let over_groups = |sums: &Tensor| match scale {
        Some(scale) => reduce::sum(&mul_add(sums, scale, sums)?, 0)?.reshape(&[n.cols]),
        None => sums.reshape(&[n.cols]),
    };
    if let Some(products) = &products {
        found[WEIGHT] = if saved.needs(WEIGHT) { Some(over_groups(products)?) } else { None };
        if saved.needs(SCALE) {
            let normed = weight.map_or_else(|| Ok(products.clone()), |weight| mul(products, weight))?;
            found[SCALE] = Some(match (&saved.inputs[BIAS], &sums) {
                (Some(bias), Some(sums)) => mul_add(sums, bias, &normed)?,
                _ => normed,
            });
        }
    }
    if let Some(sums) = sums {
        found[BIAS] = if saved.needs(BIAS) { Some(over_groups(&sums)?) } else { None };
        found[SHIFT] = Some(sums);
    }
    Ok(found)
}
