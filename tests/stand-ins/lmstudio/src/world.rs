//! The models of the stand-in and what each interface says of them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::scenario::{Field, Instance, Model, Scenario};

/// What is downloaded and loaded right now.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    loads: u32,
}

/// What an endpoint answers: a result (none for a void one), or an error.
pub(crate) type Answer = Result<Option<Value>, Value>;

impl World {
    pub(crate) fn new(mut scenario: Scenario) -> World {
        let loaded = std::mem::take(&mut scenario.loaded);
        let mut world = World { scenario, loads: 0 };
        for instance in loaded {
            world.load(instance);
        }
        world
    }

    /// Loads an instance and returns its identifier.
    pub(crate) fn load(&mut self, mut instance: Instance) -> String {
        assert!(self.model(&instance.model_key).is_some(), "no model is named {}", instance.model_key);
        self.loads += 1;
        if instance.identifier.is_empty() {
            let key = &instance.model_key;
            let taken = |identifier: &String| self.scenario.loaded.iter().any(|other| other.identifier == *identifier);
            let numbered = (2..).map(|number| format!("{key}:{number}"));
            instance.identifier =
                std::iter::once(key.clone()).chain(numbered).find(|name| !taken(name)).expect("a free name");
        }
        if instance.instance_reference.is_empty() {
            instance.instance_reference = format!("{:08x}-{}", self.loads, instance.identifier);
        }
        if instance.status.is_empty() {
            instance.status = "idle".into();
        }
        let identifier = instance.identifier.clone();
        self.scenario.loaded.push(instance);
        identifier
    }

    /// Unloads an instance; tells whether there was one.
    pub(crate) fn unload(&mut self, identifier: &str) -> bool {
        let before = self.scenario.loaded.len();
        self.scenario.loaded.retain(|instance| instance.identifier != identifier);
        self.scenario.loaded.len() != before
    }

    pub(crate) fn instance(&mut self, identifier: &str) -> Option<&mut Instance> {
        self.scenario.loaded.iter_mut().find(|instance| instance.identifier == identifier)
    }

    fn model(&self, key: &str) -> Option<&Model> {
        self.scenario.models.iter().find(|model| model.model_key == key)
    }

    /// Returns the instances of a namespace with their models.
    fn of_type(&self, kind: &str) -> Vec<(&Instance, &Model)> {
        let all = self.scenario.loaded.iter().filter_map(|instance| Some((instance, self.model(&instance.model_key)?)));
        all.filter(|(_, model)| model.r#type == kind).collect()
    }

    /// Answers an endpoint of the websocket; nothing where there is none of that name.
    pub(crate) fn answer(&mut self, namespace: &str, endpoint: &str, parameter: &Value) -> Option<Answer> {
        if !self.scenario.has(&format!("{namespace}.{endpoint}")) {
            return None;
        }
        Some(match (namespace, endpoint) {
            ("system", "listDownloadedModels") => Ok(Some(self.downloaded())),
            ("system", "version") => {
                Ok(Some(json!({ "version": self.scenario.version, "build": self.scenario.build })))
            }
            ("system", "info") => {
                let (version, is_daemon) = (&self.scenario.version, self.scenario.is_daemon);
                Ok(Some(json!({ "pid": std::process::id(), "isDaemon": is_daemon, "version": version })))
            }
            ("repository", "lmLinkStatus") => Ok(Some(self.link())),
            ("llm" | "embedding", "listLoaded") => Ok(Some(
                self.of_type(namespace).iter().map(|(instance, model)| instance_info(instance, model)).collect(),
            )),
            ("llm" | "embedding", "getModelInfo") => match self.specified(namespace, &parameter["specifier"]) {
                Some((instance, model)) => Ok(Some(instance_info(instance, model))),
                None if parameter["throwIfNotFound"] == false => Ok(None),
                None => Err(self.no_match(&parameter["specifier"])),
            },
            ("llm" | "embedding", "getLoadConfig") => match self.specified(namespace, &parameter["specifier"]) {
                Some((instance, _)) => Ok(Some(json!({ "fields": load_config(instance, namespace) }))),
                None => Err(self.no_match(&parameter["specifier"])),
            },
            ("llm" | "embedding", "getBasePredictionConfig") => Ok(Some(json!({ "fields": [] }))),
            ("llm" | "embedding", "getInstanceProcessingState") => {
                match self.specified(namespace, &parameter["specifier"]) {
                    Some((instance, _)) => Ok(Some(json!({ "status": instance.status, "queued": instance.queued }))),
                    None => Err(self.no_match(&parameter["specifier"])),
                }
            }
            ("llm" | "embedding", "estimateModelUsage") => self.estimate(parameter),
            ("llm" | "embedding", "unloadModel") => {
                let identifier = parameter["identifier"].as_str().unwrap_or_default();
                let is_it = |instance: &Instance| {
                    instance.identifier == identifier
                        && (parameter.get("deviceIdentifier").is_none_or(Value::is_null)
                            || parameter["deviceIdentifier"] == json!(instance.device_identifier))
                };
                if self.of_type(namespace).iter().any(|(instance, _)| is_it(instance)) {
                    self.unload(identifier);
                    Ok(None)
                } else {
                    Err(self.no_identifier(identifier))
                }
            }
            _ => return None,
        })
    }

    /// Returns one row a model: those that several devices have are told of once, as LM Studio does.
    fn downloaded(&self) -> Value {
        let mut keys = BTreeSet::new();
        self.scenario
            .models
            .iter()
            .filter(|model| keys.insert(&model.model_key))
            .map(|model| json!(told(model)))
            .collect()
    }

    /// Returns the devices of LM Link.
    fn link(&self) -> Value {
        let own = &self.scenario.device;
        let of_models = self.scenario.models.iter().filter_map(|model| model.device_identifier.as_ref());
        let of_instances = self.scenario.loaded.iter().filter_map(|instance| instance.device_identifier.as_ref());
        let others: BTreeSet<&String> =
            of_models.chain(of_instances).filter(|device| Some(*device) != own.as_ref()).collect();
        let peer = |device| json!({ "deviceIdentifier": device, "deviceName": "another", "status": "connected" });
        json!({
            "status": if own.is_some() { "online" } else { "offline" },
            "issues": [],
            "peers": others.into_iter().map(peer).collect::<Value>(),
            "deviceIdentifier": own,
            "deviceName": "this one",
        })
    }

    fn specified(&self, namespace: &str, specifier: &Value) -> Option<(&Instance, &Model)> {
        let query = &specifier["query"];
        let is = |wanted: &Value, own: &str| wanted.is_null() || wanted == own;
        let mut all = self.of_type(namespace).into_iter();
        match specifier["type"].as_str()? {
            "instanceReference" => {
                all.find(|(instance, _)| specifier["instanceReference"] == instance.instance_reference.as_str())
            }
            "query" => all.find(|(instance, model)| {
                is(&query["identifier"], &instance.identifier)
                    && is(&query["path"], &model.path)
                    && is(&query["domain"], &model.r#type)
                    && (query["vision"].is_null() || query["vision"] == json!(model.vision))
                    && query.get("deviceIdentifier").is_none_or(|device| *device == json!(instance.device_identifier))
            }),
            _ => None,
        }
    }

    fn estimate(&self, parameter: &Value) -> Answer {
        let key = parameter["modelKey"].as_str().unwrap_or_default();
        let Some(model) = self.model(key) else { return Err(self.no_path(key)) };
        let mut context = 4_096;
        let mut offload = json!("max");
        for layer in parameter["loadConfigStack"]["layers"].as_array().into_iter().flatten() {
            for field in layer["config"]["fields"].as_array().into_iter().flatten() {
                match field["key"].as_str().unwrap_or_default() {
                    name if name.ends_with(".load.contextLength") => {
                        context = field["value"].as_u64().unwrap_or(context);
                    }
                    name if name.ends_with(".acceleration.offloadRatio") => offload = field["value"].clone(),
                    _ => {}
                }
            }
        }
        let parts = match offload.as_str() {
            Some("off") => 0,
            Some(_) => 1_000,
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a ratio from 0 to 1")]
            None => (offload.as_f64().unwrap_or(1.0) * 1_000.0) as u64,
        };
        // So much a token is made up: a test compares what comes through, not what is right.
        let (model_bytes, context_bytes) = (model.size_bytes, context * ESTIMATED_BYTES_A_TOKEN);
        let vram = |bytes: u64| bytes / 1_000 * parts;
        Ok(Some(json!({
            "memory": {
                "confidence": "high",
                "modelVramBytes": vram(model_bytes),
                "contextVramBytes": vram(context_bytes),
                "totalVramBytes": vram(model_bytes) + vram(context_bytes),
                "modelBytes": model_bytes,
                "contextBytes": context_bytes,
                "totalBytes": model_bytes + context_bytes,
            },
            "passesGuardrails": model_bytes < 50_000_000_000,
        })))
    }

    /// Returns what `GET /api/v1/models` says.
    pub(crate) fn rest_v1(&self) -> Value {
        let row = |model: &Model| {
            let is_llm = model.r#type == "llm";
            let quantisation = model.quantization.as_ref();
            let loaded = self.scenario.loaded.iter().filter(|instance| instance.model_key == model.model_key);
            let mut row = json!({
                "type": model.r#type,
                "publisher": model.publisher,
                "key": model.model_key,
                "display_name": model.display_name,
                "quantization": quantisation.map(|one| json!({ "name": one.name, "bits_per_weight": one.bits })),
                "size_bytes": model.size_bytes,
                "params_string": model.params_string,
                "loaded_instances": loaded.map(|one| json!({ "id": one.identifier, "config": rest_config(one, model) })).collect::<Value>(),
                "max_context_length": model.max_context_length,
                "format": rest_format(&model.format),
            });
            if is_llm {
                row["architecture"] = json!(model.architecture);
                row["description"] = Value::Null;
                row["capabilities"] = json!({
                    "vision": model.vision.unwrap_or(false),
                    "trained_for_tool_use": model.trained_for_tool_use.unwrap_or(false),
                });
                if let Some(reasoning) = &model.reasoning {
                    row["capabilities"]["reasoning"] = reasoning.clone();
                }
            }
            if let (Some(variants), Some(selected)) = (&model.variants, &model.selected_variant) {
                row["variants"] = json!(variants);
                row["selected_variant"] = json!(selected);
            }
            row
        };
        json!({ "models": self.scenario.models.iter().map(row).collect::<Value>() })
    }

    /// Returns what `GET /api/v0/models` says.
    pub(crate) fn rest_v0(&self) -> Value {
        let mut rows = Vec::new();
        for model in &self.scenario.models {
            let loaded: Vec<_> =
                self.scenario.loaded.iter().filter(|instance| instance.model_key == model.model_key).collect();
            rows.extend(loaded.iter().map(|instance| rest_v0_row(model, Some(instance))));
            // Without just-in-time loading nothing but what is loaded could be used.
            if loaded.is_empty() && self.scenario.just_in_time {
                rows.push(rest_v0_row(model, None));
            }
        }
        json!({ "object": "list", "data": rows })
    }

    /// Returns what `GET /v1/models` says.
    pub(crate) fn openai(&self) -> Value {
        let rows = self.rest_v0()["data"].as_array().cloned().unwrap_or_default();
        let row = |row: &Value| json!({ "id": row["id"], "object": "model", "owned_by": "organization_owner" });
        json!({ "object": "list", "data": rows.iter().map(row).collect::<Value>() })
    }

    fn no_match(&self, specifier: &Value) -> Value {
        if specifier["type"] == "instanceReference" {
            return error("Model is unloaded.", &json!({ "code": "generic.specificModelUnloaded" }));
        }
        error(
            "No model found that fits the query.",
            &json!({
                "code": "generic.noModelMatchingQuery",
                "query": specifier["query"],
                "loadedModelsSample": self.sample(),
                "totalLoadedModels": self.scenario.loaded.len(),
            }),
        )
    }

    fn no_identifier(&self, identifier: &str) -> Value {
        error(
            &format!("Cannot find a model with the identifier \"{identifier}\"."),
            &json!({
                "code": "generic.identifierNotFound",
                "identifier": identifier,
                "loadedModelsSample": self.sample(),
                "totalLoadedModels": self.scenario.loaded.len(),
            }),
        )
    }

    fn no_path(&self, path: &str) -> Value {
        let paths: Vec<&str> = self.scenario.models.iter().take(5).map(|model| model.path.as_str()).collect();
        error(
            &format!("Cannot find a model with the path \"{path}\"."),
            &json!({
                "code": "generic.pathNotFound",
                "path": path,
                "availablePathsSample": paths,
                "totalModels": self.scenario.models.len(),
            }),
        )
    }

    fn sample(&self) -> Vec<&str> {
        self.scenario.loaded.iter().take(5).map(|instance| instance.identifier.as_str()).collect()
    }
}

/// What the stand-in's own estimate counts for a token of context.
pub const ESTIMATED_BYTES_A_TOKEN: u64 = 131_072;

/// Returns an error as the websocket carries it.
pub(crate) fn error(title: &str, display: &Value) -> Value {
    let mut error = json!({ "title": title, "rootTitle": title });
    if !display.is_null() {
        error["displayData"] = display.clone();
    }
    error
}

/// Returns a model with what it leaves out.
fn told(model: &Model) -> Model {
    let mut model = model.clone();
    if model.indexed_model_identifier.is_empty() {
        model.indexed_model_identifier.clone_from(&model.path);
    }
    if model.r#type == "llm" {
        model.vision.get_or_insert(false);
        model.trained_for_tool_use.get_or_insert(false);
    }
    model
}

fn instance_info(instance: &Instance, model: &Model) -> Value {
    let mut info = json!(told(model));
    let own = json!({
        "identifier": instance.identifier,
        "instanceReference": instance.instance_reference,
        "deviceIdentifier": instance.device_identifier,
        "ttlMs": instance.ttl_ms,
        "lastUsedTime": instance.last_used_time,
        "contextLength": instance.context_length,
    });
    let info_map = info.as_object_mut().expect("a row is an object");
    info_map.extend(own.as_object().cloned().unwrap_or_default());
    info_map.extend(instance.more.clone());
    info
}

fn load_config(instance: &Instance, kind: &str) -> Vec<Field> {
    let mut fields = instance.load_config.clone();
    let key = format!("{kind}.load.contextLength");
    if !fields.iter().any(|field| field.key == key) {
        fields.insert(0, Field { key, value: json!(instance.context_length) });
    }
    fields
}

/// Returns the few settings that REST v1 tells.
fn rest_config(instance: &Instance, model: &Model) -> Value {
    const TOLD: [(&str, &str); 5] = [
        ("eval_batch_size", "llm.load.llama.evalBatchSize"),
        ("parallel", "llm.load.numParallelSessions"),
        ("flash_attention", "llm.load.llama.flashAttention"),
        ("num_experts", "llm.load.numExperts"),
        ("offload_kv_cache_to_gpu", "llm.load.offloadKVCacheToGpu"),
    ];
    let mut config = Map::new();
    config.insert("context_length".into(), json!(instance.context_length));
    for (name, key) in TOLD.iter().filter(|_| model.r#type == "llm") {
        // An MLX instance shows these two only.
        if model.format == "gguf" || *name == "parallel" {
            let field = instance.load_config.iter().find(|field| field.key == *key);
            config.extend(field.map(|field| ((*name).to_owned(), field.value.clone())));
        }
    }
    Value::Object(config)
}

fn rest_v0_row(model: &Model, instance: Option<&&Instance>) -> Value {
    let kind = match (model.r#type.as_str(), model.vision) {
        ("embedding", _) => "embeddings",
        (_, Some(true)) => "vlm",
        (other, _) => other,
    };
    let mut row = json!({
        "id": instance.map_or(&model.model_key, |instance| &instance.identifier),
        "object": "model",
        "type": kind,
        "publisher": model.publisher,
        "arch": model.architecture,
        "compatibility_type": rest_format(&model.format),
        "quantization": model.quantization.as_ref().map(|one| &one.name),
        "state": if instance.is_some() { "loaded" } else { "not-loaded" },
        "max_context_length": model.max_context_length,
    });
    if let Some(instance) = instance {
        row["loaded_context_length"] = json!(instance.context_length);
    }
    if model.trained_for_tool_use == Some(true) {
        row["capabilities"] = json!(["tool_use"]);
    }
    row
}

/// Returns the format in REST's word.
fn rest_format(format: &str) -> &str {
    if format == "safetensors" { "mlx" } else { format }
}
