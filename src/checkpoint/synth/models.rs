//! The models: tensor names and shapes as published, and the files beside the weights.

use super::{Plan, Values};
use crate::DType;
use serde_json::{Map, Value, json};

/// google/vit-base-patch16-224: 86.6 M parameters, 1000 classes.
pub(super) fn vit_b16() -> Plan {
    const WIDTH: usize = 768;
    const MLP: usize = 3072;
    const LAYERS: usize = 12;
    const CLASSES: usize = 1000;
    let mut plan = Plan::default();
    plan.normal("vit.embeddings.cls_token", &[1, 1, WIDTH]);
    plan.normal("vit.embeddings.position_embeddings", &[1, 1 + 14 * 14, WIDTH]);
    plan.linear("vit.embeddings.patch_embeddings.projection", &[WIDTH, 3, 16, 16]);
    for i in 0..LAYERS {
        let layer = format!("vit.encoder.layer.{i}");
        for name in ["attention.query", "attention.key", "attention.value", "output.dense"] {
            plan.linear(&format!("{layer}.attention.{name}"), &[WIDTH, WIDTH]);
        }
        plan.linear(&format!("{layer}.intermediate.dense"), &[MLP, WIDTH]);
        plan.linear(&format!("{layer}.output.dense"), &[WIDTH, MLP]);
        plan.norm(&format!("{layer}.layernorm_before"), WIDTH);
        plan.norm(&format!("{layer}.layernorm_after"), WIDTH);
    }
    plan.norm("vit.layernorm", WIDTH);
    plan.linear("classifier", &[CLASSES, WIDTH]);

    let label = |i: usize| format!("LABEL_{i}");
    let id2label: Map<String, Value> = (0..CLASSES).map(|i| (i.to_string(), label(i).into())).collect();
    let label2id: Map<String, Value> = (0..CLASSES).map(|i| (label(i), i.into())).collect();
    let config = json!({
        "architectures": ["ViTForImageClassification"],
        "model_type": "vit",
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 12,
        "intermediate_size": MLP,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "image_size": 224,
        "patch_size": 16,
        "num_channels": 3,
        "qkv_bias": true,
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "id2label": id2label,
        "label2id": label2id,
        "torch_dtype": "float32",
    });
    let preprocessor = json!({
        "image_processor_type": "ViTImageProcessor",
        "do_resize": true,
        "size": {"height": 224, "width": 224},
        "resample": 2,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    });
    plan.files = vec![("config.json", config), ("preprocessor_config.json", preprocessor)];
    plan
}

/// The sizes of a Llama.
struct LlamaSizes {
    width: usize,
    mlp: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    vocabulary: usize,
    context: usize,
}

/// TinyLlama/TinyLlama-1.1B-Chat-v1.0: 1.1 G parameters in bf16. The tokenizer is not part of it.
pub(super) fn tinyllama() -> Plan {
    let sizes =
        LlamaSizes { width: 2048, mlp: 5632, layers: 22, heads: 32, kv_heads: 4, vocabulary: 32000, context: 2048 };
    llama(&sizes, DType::BF16, [1, 2])
}

/// A Llama that trains in seconds, over the bytes of its text: for trying the loop around it.
pub(super) fn llama_tiny() -> Plan {
    let sizes = LlamaSizes { width: 64, mlp: 160, layers: 2, heads: 4, kv_heads: 2, vocabulary: 260, context: 512 };
    let mut plan = llama(&sizes, DType::F32, [256, 257]);
    plan.files.extend(byte_tokenizer());
    plan
}

fn llama(s: &LlamaSizes, dtype: DType, [bos, eos]: [u32; 2]) -> Plan {
    let head_dim = s.width / s.heads;
    let mut plan = Plan { dtype, ..Plan::default() };
    plan.normal("model.embed_tokens.weight", &[s.vocabulary, s.width]);
    for i in 0..s.layers {
        let layer = format!("model.layers.{i}");
        for (name, heads) in [("q_proj", s.heads), ("k_proj", s.kv_heads), ("v_proj", s.kv_heads)] {
            plan.normal(&format!("{layer}.self_attn.{name}.weight"), &[heads * head_dim, s.width]);
        }
        plan.normal(&format!("{layer}.self_attn.o_proj.weight"), &[s.width, s.width]);
        for name in ["gate_proj", "up_proj"] {
            plan.normal(&format!("{layer}.mlp.{name}.weight"), &[s.mlp, s.width]);
        }
        plan.normal(&format!("{layer}.mlp.down_proj.weight"), &[s.width, s.mlp]);
        for name in ["input_layernorm", "post_attention_layernorm"] {
            plan.add(&format!("{layer}.{name}.weight"), &[s.width], Values::Constant(1.0));
        }
    }
    plan.add("model.norm.weight", &[s.width], Values::Constant(1.0));
    plan.normal("lm_head.weight", &[s.vocabulary, s.width]);
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": s.width,
        "intermediate_size": s.mlp,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": s.context,
        "vocab_size": s.vocabulary,
        "tie_word_embeddings": false,
        "attention_bias": false,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "torch_dtype": if dtype == DType::BF16 { "bfloat16" } else { "float32" },
    });
    plan.files = vec![("config.json", config)];
    plan
}

/// A tokenizer whose tokens are bytes, in the alphabet of GPT-2, and four special ones: `<s>` 256, `</s>` 257, `<pad>` 258,
/// `<unk>` 259.
fn byte_tokenizer() -> [(&'static str, Value); 2] {
    // Printable bytes stand for themselves, the others for the characters from 256 on, in order.
    let printable = |b: u32| (33..127).contains(&b) || (161..173).contains(&b) || (174..256).contains(&b);
    let mut next = 256;
    let mut vocabulary = Map::new();
    for byte in 0..256u32 {
        let character = match printable(byte) {
            true => byte,
            false => {
                next += 1;
                next - 1
            }
        };
        let token = char::from_u32(character).unwrap_or_default().to_string();
        vocabulary.insert(token, byte.into());
    }
    let special: Vec<Value> = ["<s>", "</s>", "<pad>", "<unk>"]
        .iter()
        .enumerate()
        .map(|(i, token)| {
            json!({"id": 256 + i, "content": token, "special": true, "normalized": false, "single_word": false,
                   "lstrip": false, "rstrip": false})
        })
        .collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let begin = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special,
        "normalizer": null,
        "pre_tokenizer": level,
        "post_processor": {"type": "TemplateProcessing", "single": [begin, text], "pair": [begin, text],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}},
        "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary,
                  "merges": []},
    });
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "model_max_length": 512});
    [("tokenizer.json", tokenizer), ("tokenizer_config.json", config)]
}

/// openai/clip-vit-large-patch14-336: 428 M parameters in two towers. The tokenizer is not part of it.
pub(super) fn clip_vit_l14_336() -> Plan {
    const TEXT: usize = 768;
    const VISION: usize = 1024;
    const EMBED: usize = 768;
    const VOCABULARY: usize = 49408;
    const CONTEXT: usize = 77;
    const PLACES: usize = 1 + 24 * 24;
    const SCALE: f32 = 2.6592;
    let mut plan = Plan::default();
    plan.add("logit_scale", &[], Values::Constant(SCALE));
    plan.normal("text_projection.weight", &[EMBED, TEXT]);
    plan.normal("visual_projection.weight", &[EMBED, VISION]);

    plan.normal("text_model.embeddings.token_embedding.weight", &[VOCABULARY, TEXT]);
    plan.normal("text_model.embeddings.position_embedding.weight", &[CONTEXT, TEXT]);
    plan.add("text_model.embeddings.position_ids", &[1, CONTEXT], Values::Positions);
    clip_layers(&mut plan, "text_model", 12, TEXT);
    plan.norm("text_model.final_layer_norm", TEXT);

    plan.normal("vision_model.embeddings.class_embedding", &[VISION]);
    plan.normal("vision_model.embeddings.patch_embedding.weight", &[VISION, 3, 14, 14]);
    plan.normal("vision_model.embeddings.position_embedding.weight", &[PLACES, VISION]);
    plan.add("vision_model.embeddings.position_ids", &[1, PLACES], Values::Positions);
    plan.norm("vision_model.pre_layrnorm", VISION);
    clip_layers(&mut plan, "vision_model", 24, VISION);
    plan.norm("vision_model.post_layernorm", VISION);

    let config = json!({
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592,
        "projection_dim": EMBED,
        "text_config": {
            "model_type": "clip_text_model",
            "hidden_size": TEXT,
            "intermediate_size": 4 * TEXT,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "max_position_embeddings": CONTEXT,
            "vocab_size": VOCABULARY,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
            "projection_dim": EMBED,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "pad_token_id": 1,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": VISION,
            "intermediate_size": 4 * VISION,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "image_size": 336,
            "patch_size": 14,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
            "projection_dim": EMBED,
        },
        "torch_dtype": "float32",
    });
    let preprocessor = json!({
        "feature_extractor_type": "CLIPFeatureExtractor",
        "do_resize": true,
        "size": 336,
        "resample": 3,
        "do_center_crop": true,
        "crop_size": 336,
        "do_normalize": true,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    });
    plan.files = vec![("config.json", config), ("preprocessor_config.json", preprocessor)];
    plan
}

fn clip_layers(plan: &mut Plan, tower: &str, layers: usize, width: usize) {
    for i in 0..layers {
        let layer = format!("{tower}.encoder.layers.{i}");
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            plan.linear(&format!("{layer}.self_attn.{name}"), &[width, width]);
        }
        plan.norm(&format!("{layer}.layer_norm1"), width);
        plan.linear(&format!("{layer}.mlp.fc1"), &[4 * width, width]);
        plan.linear(&format!("{layer}.mlp.fc2"), &[width, 4 * width]);
        plan.norm(&format!("{layer}.layer_norm2"), width);
    }
}
