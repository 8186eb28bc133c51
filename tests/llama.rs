//! Writing on with a Llama: chunks, batches, beams and draws agree with what they should equal, and bad input is refused.

use lapidary::checkpoint::Folder;
use lapidary::models::llama::{Call, Llama};
use lapidary::nn::{CausalLm, GenerateOptions, Generated, Precision, Prompt, Sampling, Scope, Taps, Tokens, generate};
use lapidary::{DType, Device, Error, Result};
use std::ops::ControlFlow;
use std::path::Path;

fn open(case: &str, precision: Precision) -> (Device, Llama) {
    let device = Device::cpu_with_threads(2).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/llama").join(case).join("checkpoint");
    let folder = Folder::open(path).unwrap();
    let scope = Scope::new(folder.weights().unwrap(), &device, precision);
    let llama = Llama::load(&scope, folder.config()).unwrap();
    (device, llama)
}

fn prompt(ids: &[u32], batch: usize) -> Prompt<'_> {
    Prompt { tokens: Tokens::Ids(ids), len: ids.len() / batch, position_ids: None, attention_mask: None }
}

fn write(llama: &Llama, ids: &[u32], options: &GenerateOptions) -> Result<Generated> {
    generate(llama, &prompt(ids, 1), 1, options, &mut |_| ControlFlow::Continue(()))
}

fn some(n: usize) -> Vec<u32> {
    (0..n).map(|i| 3 + (i * 37 % 150) as u32).collect()
}

#[test]
fn a_cache_changes_nothing() {
    let (_, llama) = open("forward_gqa_llama3_tied", Precision::F32);
    let ids = some(30);
    let whole = llama.forward(&ids, 30, &mut Call::default(), &mut Taps::none()).unwrap().to_vec::<f32>().unwrap();
    let vocabulary = llama.vocab_size();
    for pieces in [vec![30], vec![7, 1, 1, 20, 1], vec![1; 30]] {
        let (mut cache, mut at) = (llama.new_cache(1), 0);
        for n in pieces {
            let mut call = Call { cache: Some(&mut cache), ..Call::default() };
            let part = llama.forward(&ids[at..at + n], n, &mut call, &mut Taps::none()).unwrap();
            let part = part.to_vec::<f32>().unwrap();
            let want = &whole[at * vocabulary..(at + n) * vocabulary];
            let error: f32 = part.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 1e-4, "{n} tokens at {at}: {error}");
            at += n;
        }
        // Cut back, and on again: the same.
        cache.truncate(29);
        let again = llama.last_logits(&prompt(&ids[29..], 1), &mut cache).unwrap().to_vec::<f32>().unwrap();
        let error = again.iter().zip(&whole[29 * vocabulary..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 1e-4, "after a cut: {error}");
    }
}

#[test]
fn chunks_and_batches_write_what_one_prompt_writes() {
    let (_, llama) = open("generate_left_padded", Precision::F32);
    let options = GenerateOptions { max_new_tokens: 10, ..GenerateOptions::default() };
    let prompts = [some(9), some(23)[12..].to_vec(), some(40)[35..].to_vec()];
    let alone: Vec<Vec<u32>> = prompts.iter().map(|p| write(&llama, p, &options).unwrap().ids.remove(0)).collect();
    for chunk in [1, 4, 11] {
        let chunked = GenerateOptions { prefill_chunk: chunk, ..options.clone() };
        assert_eq!(write(&llama, &prompts[1], &chunked).unwrap().ids[0], alone[1], "chunks of {chunk}");
        let len = prompts.iter().map(Vec::len).max().unwrap();
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for p in &prompts {
            ids.extend(std::iter::repeat_n(0, len - p.len()).chain(p.iter().copied()));
            mask.extend(std::iter::repeat_n(0, len - p.len()).chain(p.iter().map(|_| 1)));
        }
        let all = Prompt { attention_mask: Some(&mask), ..prompt(&ids, 3) };
        let together = generate(&llama, &all, 3, &chunked, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(together.ids, alone, "chunks of {chunk}");
        assert_eq!(together.prompt_tokens, prompts.iter().map(Vec::len).sum::<usize>());
    }
}

#[test]
fn the_cache_grows_past_a_block() {
    let (device, llama) = open("forward_gqa_llama3_tied", Precision::F32);
    let before = device.memory().current_bytes;
    let ids = some(250);
    let mut steps = llama.new_cache(1);
    llama.last_logits(&prompt(&ids, 1), &mut steps).unwrap();
    let more = some(300)[250..].to_vec();
    let mut last = None;
    for id in &more {
        last = Some(llama.last_logits(&prompt(std::slice::from_ref(id), 1), &mut steps).unwrap());
    }
    let mut whole = llama.new_cache(1);
    let at_once = llama.last_logits(&prompt(&some(300), 1), &mut whole).unwrap().to_vec::<f32>().unwrap();
    let stepped = last.take().unwrap().to_vec::<f32>().unwrap();
    let error = stepped.iter().zip(&at_once).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(error < 1e-3, "{error}");
    assert_eq!((steps.len(), whole.len()), (300, 300));
    drop((steps, whole));
    assert_eq!(device.memory().current_bytes, before, "something was kept");
}

#[test]
fn draws_depend_on_the_seed_alone() {
    let (_, llama) = open("forward_v5_config", Precision::F32);
    let drawn = |seed| {
        let sampling = Sampling { temperature: 1.5, top_k: 40, top_p: 0.95, seed, ..Sampling::default() };
        let options = GenerateOptions { max_new_tokens: 20, sampling, ..GenerateOptions::default() };
        write(&llama, &some(6), &options).unwrap().ids
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
    let greedy = GenerateOptions { max_new_tokens: 20, ..GenerateOptions::default() };
    let nearly = Sampling { temperature: 1e-4, seed: 9, ..Sampling::default() };
    let cold = GenerateOptions { sampling: nearly, ..greedy.clone() };
    assert_eq!(write(&llama, &some(6), &cold).unwrap().ids, write(&llama, &some(6), &greedy).unwrap().ids);
    let repeats = |penalty| {
        let sampling = Sampling { repetition_penalty: penalty, ..Sampling::default() };
        let ids = write(&llama, &some(6), &GenerateOptions { sampling, ..greedy.clone() }).unwrap().ids.remove(0);
        let distinct: std::collections::BTreeSet<u32> = ids.iter().copied().collect();
        ids.len() - distinct.len()
    };
    assert_eq!(repeats(1000.0), 0, "a penalty of a thousand lets no token come twice");
}

/// The sum of log-probabilities that the model gives a continuation.
fn score(llama: &Llama, prompt: &[u32], new: &[u32]) -> f64 {
    let all = [prompt, new].concat();
    let logits = llama.forward(&all, all.len(), &mut Call::default(), &mut Taps::none()).unwrap();
    let (logits, vocabulary) = (logits.to_vec::<f32>().unwrap(), llama.vocab_size());
    let row = |i: usize| &logits[i * vocabulary..(i + 1) * vocabulary];
    let logp = |(j, &id): (usize, &u32)| {
        let row = row(prompt.len() - 1 + j);
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        f64::from(row[id as usize]) - sum.ln()
    };
    new.iter().enumerate().map(logp).sum()
}

#[test]
fn beams_find_what_greed_misses() {
    let (_, llama) = open("forward_v5_config", Precision::F32);
    let prompt = some(5);
    let best = |num_beams| {
        let options = GenerateOptions { max_new_tokens: 6, num_beams, ..GenerateOptions::default() };
        write(&llama, &prompt, &options).unwrap().ids.remove(0)
    };
    let scores: Vec<f64> = [1, 2, 8].iter().map(|&n| score(&llama, &prompt, &best(n))).collect();
    assert!(scores[2] >= scores[0] - 1e-4 && scores[1] >= scores[0] - 1e-4, "{scores:?}");
    // Two sequences are searched as each alone.
    let other: Vec<u32> = prompt.iter().map(|id| id + 1).collect();
    let options = GenerateOptions { max_new_tokens: 6, num_beams: 3, ..GenerateOptions::default() };
    let both = [prompt.clone(), other.clone()].concat();
    let p = Prompt { len: 5, ..self::prompt(&both, 2) };
    let together = generate(&llama, &p, 2, &options, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(together.ids[0], best_of(&llama, &prompt, &options));
    assert_eq!(together.ids[1], best_of(&llama, &other, &options));
}

fn best_of(llama: &Llama, prompt: &[u32], options: &GenerateOptions) -> Vec<u32> {
    write(llama, prompt, options).unwrap().ids.remove(0)
}

#[test]
fn writing_stops_when_told() {
    let (_, llama) = open("forward_v5_config", Precision::F32);
    let options = GenerateOptions { max_new_tokens: 8, ..GenerateOptions::default() };
    let all = write(&llama, &some(4), &options).unwrap().ids.remove(0);
    let eos = GenerateOptions { eos_ids: vec![all[3]], ..options.clone() };
    let until = all.iter().position(|&id| id == all[3]).unwrap() + 1;
    assert_eq!(write(&llama, &some(4), &eos).unwrap().ids[0], all[..until]);
    let mut heard = 0;
    let ids = some(4);
    let stopped = generate(&llama, &prompt(&ids, 1), 1, &options, &mut |step| {
        heard += 1;
        if step.index == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((stopped.unwrap().ids[0].len(), heard), (3, 3));
    // The context ends it, too: a full one still gives the token after it.
    let context = llama.context_length();
    let full = some(context);
    let more = GenerateOptions { max_new_tokens: 50, ..options };
    assert_eq!(write(&llama, &full, &more).unwrap().ids[0].len(), 1);
    assert_eq!(write(&llama, &full[..context - 4], &more).unwrap().ids[0].len(), 5);
}

#[test]
fn sixteen_bits_stay_near() {
    let (_, exact) = open("forward_v5_config", Precision::F32);
    let ids = some(12);
    let logits = |llama: &Llama| {
        llama.forward(&ids, 12, &mut Call::default(), &mut Taps::none()).unwrap().to_vec::<f32>().unwrap()
    };
    let want = logits(&exact);
    for dtype in [DType::BF16, DType::F16] {
        let (_, llama) = open("forward_v5_config", Precision::compute_in(dtype).unwrap());
        let got = logits(&llama);
        let (mut error, mut norm) = (0f64, 0f64);
        for (a, b) in got.iter().zip(&want) {
            error += f64::from(a - b).powi(2);
            norm += f64::from(*b).powi(2);
        }
        assert!((error / norm).sqrt() < 3e-2, "{dtype}: {}", (error / norm).sqrt());
    }
}

#[test]
fn bad_prompts_are_refused() {
    let (_, llama) = open("forward_v5_config", Precision::F32);
    let options = GenerateOptions::default();
    let says = |ids: &[u32], options: &GenerateOptions| match write(&llama, ids, options) {
        Err(Error::Config(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(says(&[], &options).contains("empty"));
    assert!(says(&[5, 100_000], &options).contains("100000"));
    let long = some(llama.context_length() + 1);
    assert!(says(&long, &options).contains("context"));
    let with = |change: fn(&mut GenerateOptions)| {
        let mut options = GenerateOptions::default();
        change(&mut options);
        says(&[5, 6], &options)
    };
    assert!(with(|o| o.sampling.temperature = -1.0).contains("temperature"));
    assert!(with(|o| o.sampling.top_p = f32::NAN).contains("top_p"));
    assert!(with(|o| o.num_beams = 0).contains("num_beams"));
    assert!(with(|o| o.max_new_tokens = 0).contains("max_new_tokens"));
    assert!(with(|o| (o.num_beams, o.sampling.temperature) = (2, 1.0)).contains("beams"));
    let mask = [1u32; 3];
    let wrong = Prompt { attention_mask: Some(&mask), ..prompt(&[5, 6], 1) };
    assert!(generate(&llama, &wrong, 1, &options, &mut |_| ControlFlow::Continue(())).is_err());
    assert!(
        llama
            .forward(&[5, 6], 2, &mut Call { position_ids: Some(&[0]), ..Call::default() }, &mut Taps::none())
            .is_err()
    );
}
