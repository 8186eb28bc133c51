//! The models: tensor names and shapes as published, and the files beside the weights.

use super::{Plan, Values};
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
