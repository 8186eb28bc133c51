//! `d loss / d logits = weight · (softmax - one-hot)` and `d lse / d logits = softmax`, in one kernel.

use super::{CrossEntropy, Options};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::Saved;
use crate::ops::cross_entropy_bwd::cross_entropy_bwd;
use crate::tensor::Tensor;

/// All operands, and the log-sum-exp.
pub const KEEPS: (u32, u32) = (0b111, 0b10);

pub fn grad(saved: &Saved<CrossEntropy>, grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
    let (Some(logits), Some(labels), Some(lse)) = (&saved.inputs[0], &saved.inputs[1], &saved.outputs[1]) else {
        return Ok(vec![None; 3]);
    };
    let zeros;
    let grad_loss = match &grads[0] {
        Some(grad) => grad,
        None => {
            zeros = Tensor::zeros(logits.device(), DType::F32, &[saved.op.rows])?;
            &zeros
        }
    };
    let options = Options { weights: saved.inputs[2].as_ref(), ignore: saved.op.ignore };
    let grad = cross_entropy_bwd(logits, labels, lse, grad_loss, grads[1].as_ref(), &options)?;
    Ok(vec![Some(grad), None, None])
}

#[cfg(test)]
mod tests {
    use crate::ops::cross_entropy::{Options, mean_loss};
    use crate::ops::elementwise;
    use crate::{Device, Tensor, backward};

    #[test]
    fn the_gradient_of_a_mean_is_shared_by_rows_that_count() {
        let d = Device::cpu_with_threads(1).unwrap();
        let x = [0.0f32, 1.0, -1.0, 2.0, 0.5, 0.25];
        let logits = Tensor::from_slice(&d, &x, &[1, 3, 2]).unwrap().with_grad();
        let labels = Tensor::from_slice(&d, &[1i32, -100, 0], &[1, 3]).unwrap();
        let weights = Tensor::from_slice(&d, &[3f32, 7., 1.], &[1, 3]).unwrap();
        let options = Options { weights: Some(&weights), ..Default::default() };
        let loss = mean_loss(&logits, &labels, &options).unwrap();
        let one = Tensor::from_slice(&d, &[1f32], &[1]).unwrap();
        let gradients = backward(&[(loss, one)], elementwise::add).unwrap();
        let grad = gradients.get(&logits).unwrap();
        assert_eq!(grad.shape(), [1, 3, 2]);
        // Of two classes, softmax is a sigmoid of the difference.
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        let (a, c) = (0.75 * sigmoid(-1.0), 0.25 * sigmoid(-0.25));
        let want = [a, -a, 0.0, 0.0, -c, c];
        for (got, want) in grad.to_vec::<f32>().unwrap().into_iter().zip(want) {
            assert!((got - want).abs() < 1e-6, "{got} for {want}");
        }
    }
}
