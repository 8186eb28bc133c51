//! What attention, its merge and its gradients do together.

use lapidary::ops::attention::{Options, attention, attention_with_lse};
use lapidary::ops::attention_merge::attention_merge;
use lapidary::ops::concat::concat;
use lapidary::ops::elementwise::add;
use lapidary::{DType, Device, Result, Tensor, backward};

/// Reproducible values in (-1, 1).
fn values(device: &Device, seed: usize, shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    let value = |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0;
    Tensor::from_slice(device, &(0..count).map(value).collect::<Vec<_>>(), shape).unwrap()
}

fn close(a: &Tensor, b: &Tensor) {
    assert_eq!(a.shape(), b.shape());
    let read = |t: &Tensor| t.contiguous().unwrap().to_vec::<f32>().unwrap();
    let (a, b) = (read(a), read(b));
    let norm = b.iter().map(|x| x * x).sum::<f32>().sqrt();
    let error = a.iter().zip(&b).map(|(x, y)| (x - y).powi(2)).sum::<f32>().sqrt();
    assert!(error <= 2e-6 * norm, "error {error} of {norm}");
}

/// Attention over the keys in two parts, merged, has the result, the log-sum-exp and the gradients of attention over all; with
/// `dlse`, a gradient arrives at the log-sum-exps, too. Causal queries that stand before the second part see nothing of it.
#[test]
fn merged_parts_have_the_gradients_of_the_whole() -> Result<()> {
    let device = Device::cpu_with_threads(2)?;
    for dlse in [false, true] {
        let (len, part) = (70, 40);
        let shape = [2, len, 3, 16];
        let leaves = [1, 2, 3].map(|seed| values(&device, seed, &shape).with_grad());
        let arriving = [values(&device, 4, &shape), values(&device, 5, &[2, 3, len])];
        let roots = |results: (Tensor, Tensor)| {
            let [dout, other] = arriving.clone();
            let mut roots = vec![(results.0, dout)];
            if dlse {
                roots.push((results.1, other));
            }
            roots
        };
        let causal = Options { causal: true, ..Options::default() };
        let [q, k, v] = &leaves;
        let whole = attention_with_lse(q, k, v, &causal)?;
        let of_whole = backward(roots(whole.clone()), add)?;

        // The last query stands beside the last key of each part, so the first part is seen through a bias.
        let hidden = |i: usize, j: usize| if j > i { f32::NEG_INFINITY } else { 0.0 };
        let bias = |from: usize, to: usize| {
            let values: Vec<f32> = (0..len).flat_map(|i| (from..to).map(move |j| hidden(i, j))).collect();
            Tensor::from_slice(&device, &values, &[1, 1, len, to - from])
        };
        let parts = [(0, part), (part, len)].map(|(from, to)| {
            let bias = bias(from, to)?;
            let options = Options { bias: Some(&bias), ..Options::default() };
            attention_with_lse(q, &k.slice(1, from..to)?, &v.slice(1, from..to)?, &options)
        });
        let [a, b] = parts;
        let (a, b) = (a?, b?);
        let merged = attention_merge((&a.0, &a.1), (&b.0, &b.1))?;
        close(&merged.0, &whole.0);
        close(&merged.1, &whole.1);
        let of_parts = backward(roots(merged), add)?;
        for leaf in &leaves {
            close(of_parts.get(leaf).unwrap(), of_whole.get(leaf).unwrap());
        }
    }
    Ok(())
}

/// What a query gets does not depend, to the last bit, on the queries beside it, though scores rise so far that sums are scaled again
/// and again; nor, where a mask looks at places, on how many there are.
#[test]
fn queries_do_not_notice_each_other() -> Result<()> {
    let device = Device::cpu_with_threads(1)?;
    let len = 245;
    let rising = |t: Tensor| {
        let of_row = |(i, x): (usize, f32)| x * (1.0 + 0.2 * (i / (2 * 16)) as f32);
        let rows: Vec<f32> = t.to_vec::<f32>()?.into_iter().enumerate().map(of_row).collect();
        Tensor::from_slice(&device, &rows, t.shape())
    };
    let [q, k, v] = [1, 2, 3].map(|seed| values(&device, seed, &[1, len, 2, 16]));
    let k = rising(k)?;
    for dtype in [DType::F32, DType::BF16] {
        let [q, k, v, others] = [&q, &k, &v, &v].map(|t| t.to_dtype(dtype).unwrap());
        for options in [
            Options { out: dtype, ..Options::default() },
            Options { out: dtype, causal: true, window: 100, ..Options::default() },
            Options { out: dtype, softmax_scale: Some(-3.0), ..Options::default() },
        ] {
            let all = attention(&q, &k, &v, &options)?;
            let read = |t: Tensor| t.contiguous()?.to_dtype(DType::F32)?.to_vec::<f32>();
            for from in [1, 100, 203] {
                let others = concat(&[&others.slice(1, 0..from)?, &q.slice(1, from..len)?], 1)?;
                let beside = attention(&others, &k, &v, &options)?.slice(1, from..len)?;
                assert!(read(all.slice(1, from..len)?)? == read(beside)?, "{dtype} beside others before {from}");
                if options.causal {
                    let some = attention(&q.slice(1, from..len)?, &k, &v, &options)?;
                    assert!(read(all.slice(1, from..len)?)? == read(some)?, "{dtype} from {from}");
                }
            }
        }
    }
    Ok(())
}

/// What padding hides may be anything: it gets zeros, and nobody else notices. With bf16, two keys or two queries are a word of a
/// product.
#[test]
fn hidden_keys_may_be_anything() -> Result<()> {
    let device = Device::cpu_with_threads(1)?;
    let shape = [1, 51, 2, 8];
    let padding: Vec<u8> = (0..51).map(|j| u8::from(j % 3 != 1)).collect();
    let padding = Tensor::from_slice(&device, &padding, &[1, 51])?;
    let of_hidden =
        |of_keys: &[f32]| -> Vec<f32> { of_keys.chunks(16).skip(1).step_by(3).flatten().copied().collect() };
    for dtype in [DType::F32, DType::BF16] {
        // The result and the gradients of queries, keys and values.
        let found = |rubbish: f32| -> Result<[Vec<f32>; 4]> {
            let [q, mut k, mut v] = [1, 2, 3].map(|seed| values(&device, seed, &shape).to_vec::<f32>().unwrap());
            for of_keys in [&mut k, &mut v] {
                of_keys.chunks_exact_mut(16).skip(1).step_by(3).for_each(|row| row.fill(rubbish));
            }
            let leaves = [q, k, v].map(|x| Tensor::from_slice(&device, &x, &shape).unwrap());
            let leaves = leaves.map(|x| x.to_dtype(dtype).unwrap().with_grad());
            let options = Options { key_padding: Some(&padding), out: dtype, ..Options::default() };
            let out = attention(&leaves[0], &leaves[1], &leaves[2], &options)?;
            let gradients = backward(&[(out.clone(), values(&device, 4, &shape))], add)?;
            let [q, k, v] = leaves.each_ref().map(|leaf| gradients.get(leaf).unwrap());
            Ok([&out.to_dtype(DType::F32)?, q, k, v].map(|x| x.to_vec().unwrap()))
        };
        let with_rubbish = found(f32::NAN)?;
        assert_eq!(found(0.0)?, with_rubbish, "{dtype}");
        for of_keys in &with_rubbish[2..] {
            assert!(of_hidden(of_keys).iter().all(|x| *x == 0.0), "{dtype}");
            assert!(of_keys.iter().any(|x| *x != 0.0), "{dtype}");
        }
    }
    Ok(())
}

/// No matrix of scores is stored, forwards or backwards: twice the length takes twice the memory.
#[test]
fn memory_of_the_gradients_is_linear_in_the_length() -> Result<()> {
    let mut peaks = Vec::new();
    for len in [600, 1200] {
        let device = Device::cpu_with_threads(2)?;
        let shape = [1, len, 2, 32];
        let [q, k, v] = [1, 2, 3].map(|seed| values(&device, seed, &shape).with_grad());
        let out = attention(&q, &k, &v, &Options { causal: true, ..Default::default() })?;
        backward([(out, values(&device, 4, &shape))], add)?;
        peaks.push(device.memory().peak_bytes as f64);
    }
    assert!(peaks[1] < 2.05 * peaks[0], "{peaks:?}");
    Ok(())
}
