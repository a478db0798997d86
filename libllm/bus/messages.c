/* generated from schemas/ by schemas/codegen.py; do not edit. */
#include "bus/messages.h"

#include <assert.h>
#include <stddef.h>

const char *cancel_reason_name(cancel_reason value)
{
    switch (value) {
    case CANCEL_REASON_CLIENT_LEFT: return "client_left";
    case CANCEL_REASON_STOP_STRING: return "stop_string";
    case CANCEL_REASON_DEADLINE: return "deadline";
    case CANCEL_REASON_CONTENT_FILTER: return "content_filter";
    case CANCEL_REASON_REPETITION: return "repetition";
    case CANCEL_REASON_SUPERSEDED: return "superseded";
    case CANCEL_REASON_ERROR: return "error";
    }
    return "unknown";
}

const char *executor_role_name(executor_role value)
{
    switch (value) {
    case EXECUTOR_ROLE_BOTH: return "both";
    case EXECUTOR_ROLE_PREFILL: return "prefill";
    case EXECUTOR_ROLE_DECODE: return "decode";
    }
    return "unknown";
}

const char *finish_reason_name(finish_reason value)
{
    switch (value) {
    case FINISH_REASON_NONE: return "none";
    case FINISH_REASON_STOP: return "stop";
    case FINISH_REASON_LENGTH: return "length";
    case FINISH_REASON_CANCELLED: return "cancelled";
    case FINISH_REASON_ERROR: return "error";
    case FINISH_REASON_CONTENT_FILTER: return "content_filter";
    case FINISH_REASON_TIMEOUT: return "timeout";
    case FINISH_REASON_REPETITION: return "repetition";
    }
    return "unknown";
}

const char *logits_wanted_name(logits_wanted value)
{
    switch (value) {
    case LOGITS_WANTED_NONE: return "none";
    case LOGITS_WANTED_LAST: return "last";
    case LOGITS_WANTED_ALL: return "all";
    case LOGITS_WANTED_POOLED: return "pooled";
    }
    return "unknown";
}

const char *prompt_kind_name(prompt_kind value)
{
    switch (value) {
    case PROMPT_KIND_CHAT: return "chat";
    case PROMPT_KIND_TEXT: return "text";
    case PROMPT_KIND_TOKENS: return "tokens";
    }
    return "unknown";
}

const char *request_task_name(request_task value)
{
    switch (value) {
    case REQUEST_TASK_GENERATE: return "generate";
    case REQUEST_TASK_EMBED: return "embed";
    case REQUEST_TASK_SCORE: return "score";
    }
    return "unknown";
}

const char *role_name(role value)
{
    switch (value) {
    case ROLE_UNKNOWN: return "unknown";
    case ROLE_GATEWAY: return "gateway";
    case ROLE_TOKENIZER: return "tokenizer";
    case ROLE_SCHEDULER: return "scheduler";
    case ROLE_EXECUTOR: return "executor";
    case ROLE_DRAFTER: return "drafter";
    case ROLE_POSTPROCESSOR: return "postprocessor";
    case ROLE_CLIENT: return "client";
    }
    return "unknown";
}

const chat_message chat_message_defaults = {0};

static const wire_field chat_message_fields[] = {
    {"role", 1, WIRE_STR, .offset = offsetof(chat_message, role), .max_bytes = 64},
    {"content", 2, WIRE_STR, .offset = offsetof(chat_message, content), .max_bytes = 4194304},
    {"name", 3, WIRE_STR, .offset = offsetof(chat_message, name), .max_bytes = 256},
    {"tool_call_id", 4, WIRE_STR, .offset = offsetof(chat_message, tool_call_id), .max_bytes = 256},
    {"tool_calls_json", 5, WIRE_STR, .offset = offsetof(chat_message, tool_calls_json), .max_bytes = 1048576},
    {"reasoning_content", 6, WIRE_STR, .offset = offsetof(chat_message, reasoning_content), .max_bytes = 4194304},
};

static const wire_struct chat_message_wire = {"chat_message", chat_message_fields, COUNT(chat_message_fields), sizeof(chat_message), &chat_message_defaults};

const node_status node_status_defaults = {0};

static const wire_field node_status_fields[] = {
    {"name", 1, WIRE_STR, .offset = offsetof(node_status, name), .max_bytes = 64},
    {"version", 2, WIRE_STR, .offset = offsetof(node_status, version), .max_bytes = 32},
    {"ready", 3, WIRE_BOOL, .offset = offsetof(node_status, ready)},
    {"draining", 4, WIRE_BOOL, .offset = offsetof(node_status, draining)},
    {"connected_ms", 5, WIRE_U64, .offset = offsetof(node_status, connected_ms)},
    {"load", 6, WIRE_U32, .offset = offsetof(node_status, load)},
};

static const wire_struct node_status_wire = {"node_status", node_status_fields, COUNT(node_status_fields), sizeof(node_status), &node_status_defaults};

const executor_status executor_status_defaults = {0};

static const wire_field executor_status_fields[] = {
    {"node", 1, WIRE_STRUCT, .offset = offsetof(executor_status, node), .of = &node_status_wire},
    {"model", 2, WIRE_STR, .offset = offsetof(executor_status, model), .max_bytes = 256},
    {"device", 3, WIRE_STR, .offset = offsetof(executor_status, device), .max_bytes = 128},
    {"n_running", 4, WIRE_U32, .offset = offsetof(executor_status, n_running)},
    {"n_slots", 5, WIRE_U32, .offset = offsetof(executor_status, n_slots)},
    {"n_kv_blocks", 6, WIRE_U32, .offset = offsetof(executor_status, n_kv_blocks)},
    {"n_kv_blocks_used", 7, WIRE_U32, .offset = offsetof(executor_status, n_kv_blocks_used)},
    {"n_kv_blocks_cached", 8, WIRE_U32, .offset = offsetof(executor_status, n_kv_blocks_cached)},
    {"kv_block_tokens", 9, WIRE_U32, .offset = offsetof(executor_status, kv_block_tokens)},
    {"tokens_per_s", 10, WIRE_F32, .offset = offsetof(executor_status, tokens_per_s), .ranged = true, .min = 0.0f, .max = 1000000000000.0f},
    {"plans_in_flight", 11, WIRE_U32, .offset = offsetof(executor_status, plans_in_flight)},
};

static const wire_struct executor_status_wire = {"executor_status", executor_status_fields, COUNT(executor_status_fields), sizeof(executor_status), &executor_status_defaults};

const kv_offload_move kv_offload_move_defaults = {0};

static const wire_field kv_offload_move_fields[] = {
    {"block", 1, WIRE_U32, .offset = offsetof(kv_offload_move, block)},
    {"slot", 2, WIRE_U32, .offset = offsetof(kv_offload_move, slot)},
    {"stamp", 3, WIRE_U64, .offset = offsetof(kv_offload_move, stamp)},
};

static const wire_struct kv_offload_move_wire = {"kv_offload_move", kv_offload_move_fields, COUNT(kv_offload_move_fields), sizeof(kv_offload_move), &kv_offload_move_defaults};

const logit_bias logit_bias_defaults = {0};

static const wire_field logit_bias_fields[] = {
    {"token", 1, WIRE_U32, .offset = offsetof(logit_bias, token)},
    {"bias", 2, WIRE_F32, .offset = offsetof(logit_bias, bias), .ranged = true, .min = -100.0f, .max = 100.0f},
};

static const wire_struct logit_bias_wire = {"logit_bias", logit_bias_fields, COUNT(logit_bias_fields), sizeof(logit_bias), &logit_bias_defaults};

const output_params output_params_defaults = {.filter = true};

static const wire_field output_params_fields[] = {
    {"stop", 1, WIRE_LIST_STR, .offset = offsetof(output_params, stop), .count_offset = offsetof(output_params, n_stop), .max_items = 16, .max_bytes = 256},
    {"include_stop", 2, WIRE_BOOL, .offset = offsetof(output_params, include_stop)},
    {"special_tokens", 3, WIRE_BOOL, .offset = offsetof(output_params, special_tokens)},
    {"echo", 4, WIRE_BOOL, .offset = offsetof(output_params, echo)},
    {"filter", 5, WIRE_BOOL, .offset = offsetof(output_params, filter)},
    {"repetition_limit", 6, WIRE_U32, .offset = offsetof(output_params, repetition_limit)},
};

static const wire_struct output_params_wire = {"output_params", output_params_fields, COUNT(output_params_fields), sizeof(output_params), &output_params_defaults};

const resume_point resume_point_defaults = {0};

static const wire_field resume_point_fields[] = {
    {"choice", 1, WIRE_U32, .offset = offsetof(resume_point, choice)},
    {"tokens", 2, WIRE_BLOB, .offset = offsetof(resume_point, tokens), .count_offset = offsetof(resume_point, n_tokens), .max_items = 1048576},
    {"finished", 3, WIRE_BOOL, .offset = offsetof(resume_point, finished)},
    {"text_bytes", 4, WIRE_U32, .offset = offsetof(resume_point, text_bytes)},
};

static const wire_struct resume_point_wire = {"resume_point", resume_point_fields, COUNT(resume_point_fields), sizeof(resume_point), &resume_point_defaults};

const sampling_params sampling_params_defaults = {.temperature = 1.0f, .top_p = 1.0f, .typical_p = 1.0f, .repetition_penalty = 1.0f, .length_penalty = 1.0f};

static const wire_field sampling_params_fields[] = {
    {"temperature", 1, WIRE_F32, .offset = offsetof(sampling_params, temperature), .ranged = true, .min = 0.0f, .max = 100.0f},
    {"top_p", 2, WIRE_F32, .offset = offsetof(sampling_params, top_p), .ranged = true, .min = 0.0f, .max = 1.0f},
    {"top_k", 3, WIRE_U32, .offset = offsetof(sampling_params, top_k)},
    {"min_p", 4, WIRE_F32, .offset = offsetof(sampling_params, min_p), .ranged = true, .min = 0.0f, .max = 1.0f},
    {"typical_p", 5, WIRE_F32, .offset = offsetof(sampling_params, typical_p), .ranged = true, .min = 0.0f, .max = 1.0f},
    {"repetition_penalty", 6, WIRE_F32, .offset = offsetof(sampling_params, repetition_penalty), .ranged = true, .min = 0.01f, .max = 100.0f},
    {"frequency_penalty", 7, WIRE_F32, .offset = offsetof(sampling_params, frequency_penalty), .ranged = true, .min = -2.0f, .max = 2.0f},
    {"presence_penalty", 8, WIRE_F32, .offset = offsetof(sampling_params, presence_penalty), .ranged = true, .min = -2.0f, .max = 2.0f},
    {"no_repeat_ngram", 9, WIRE_U32, .offset = offsetof(sampling_params, no_repeat_ngram), .ranged = true, .min = 0.0, .max = 64.0},
    {"seed", 10, WIRE_U64, .offset = offsetof(sampling_params, seed)},
    {"logit_bias", 11, WIRE_LIST_STRUCT, .offset = offsetof(sampling_params, logit_bias), .count_offset = offsetof(sampling_params, n_logit_bias), .max_items = 1024, .of = &logit_bias_wire},
    {"n_top_logprobs", 12, WIRE_U32, .offset = offsetof(sampling_params, n_top_logprobs), .ranged = true, .min = 0.0, .max = 64.0},
    {"logprobs", 13, WIRE_BOOL, .offset = offsetof(sampling_params, logprobs)},
    {"ignore_eos", 14, WIRE_BOOL, .offset = offsetof(sampling_params, ignore_eos)},
    {"min_tokens", 15, WIRE_U32, .offset = offsetof(sampling_params, min_tokens)},
    {"beam_width", 16, WIRE_U32, .offset = offsetof(sampling_params, beam_width), .ranged = true, .min = 0.0, .max = 16.0},
    {"length_penalty", 17, WIRE_F32, .offset = offsetof(sampling_params, length_penalty), .ranged = true, .min = -10.0f, .max = 10.0f},
};

static const wire_struct sampling_params_wire = {"sampling_params", sampling_params_fields, COUNT(sampling_params_fields), sizeof(sampling_params), &sampling_params_defaults};

const slot_open slot_open_defaults = {.sampling = {.temperature = 1.0f, .top_p = 1.0f, .typical_p = 1.0f, .repetition_penalty = 1.0f, .length_penalty = 1.0f}};

static const wire_field slot_open_fields[] = {
    {"slot", 1, WIRE_U32, .offset = offsetof(slot_open, slot), .required = true},
    {"tokens", 2, WIRE_BLOB, .offset = offsetof(slot_open, tokens), .count_offset = offsetof(slot_open, n_tokens), .max_items = 1048576},
    {"n_prompt_tokens", 3, WIRE_U32, .offset = offsetof(slot_open, n_prompt_tokens)},
    {"sampling", 4, WIRE_STRUCT, .offset = offsetof(slot_open, sampling), .of = &sampling_params_wire},
    {"stop_tokens", 5, WIRE_BLOB, .offset = offsetof(slot_open, stop_tokens), .count_offset = offsetof(slot_open, n_stop_tokens), .max_items = 64},
    {"seed", 6, WIRE_U64, .offset = offsetof(slot_open, seed)},
    {"second_start", 7, WIRE_U32, .offset = offsetof(slot_open, second_start)},
};

static const wire_struct slot_open_wire = {"slot_open", slot_open_fields, COUNT(slot_open_fields), sizeof(slot_open), &slot_open_defaults};

const step_entry step_entry_defaults = {0};

static const wire_field step_entry_fields[] = {
    {"slot", 1, WIRE_U32, .offset = offsetof(step_entry, slot), .required = true},
    {"position", 2, WIRE_U32, .offset = offsetof(step_entry, position)},
    {"n_tokens", 3, WIRE_U32, .offset = offsetof(step_entry, n_tokens), .required = true, .ranged = true, .min = 1.0, .max = 4294967295.0},
    {"drafts", 4, WIRE_BLOB, .offset = offsetof(step_entry, drafts), .count_offset = offsetof(step_entry, n_drafts), .max_items = 16},
    {"block_start", 5, WIRE_U32, .offset = offsetof(step_entry, block_start)},
    {"blocks", 6, WIRE_BLOB, .offset = offsetof(step_entry, blocks), .count_offset = offsetof(step_entry, n_blocks), .max_items = 65536},
    {"logits", 7, WIRE_ENUM, .offset = offsetof(step_entry, logits), .n_enum = 4},
    {"append", 8, WIRE_BLOB, .offset = offsetof(step_entry, append), .count_offset = offsetof(step_entry, n_append), .max_items = 64},
    {"no_sample", 9, WIRE_BOOL, .offset = offsetof(step_entry, no_sample)},
};

static const wire_struct step_entry_wire = {"step_entry", step_entry_fields, COUNT(step_entry_fields), sizeof(step_entry), &step_entry_defaults};

const token_logprob token_logprob_defaults = {0};

static const wire_field token_logprob_fields[] = {
    {"token", 1, WIRE_U32, .offset = offsetof(token_logprob, token)},
    {"logprob", 2, WIRE_F32, .offset = offsetof(token_logprob, logprob)},
    {"rank", 3, WIRE_U32, .offset = offsetof(token_logprob, rank)},
    {"top_tokens", 4, WIRE_BLOB, .offset = offsetof(token_logprob, top_tokens), .count_offset = offsetof(token_logprob, n_top_tokens), .max_items = 64},
    {"top_logprobs", 5, WIRE_BLOB, .offset = offsetof(token_logprob, top_logprobs), .count_offset = offsetof(token_logprob, n_top_logprobs), .max_items = 64},
};

static const wire_struct token_logprob_wire = {"token_logprob", token_logprob_fields, COUNT(token_logprob_fields), sizeof(token_logprob), &token_logprob_defaults};

const step_output step_output_defaults = {0};

static const wire_field step_output_fields[] = {
    {"slot", 1, WIRE_U32, .offset = offsetof(step_output, slot)},
    {"position", 2, WIRE_U32, .offset = offsetof(step_output, position)},
    {"tokens", 3, WIRE_BLOB, .offset = offsetof(step_output, tokens), .count_offset = offsetof(step_output, n_tokens), .max_items = 64},
    {"logprobs", 4, WIRE_LIST_STRUCT, .offset = offsetof(step_output, logprobs), .count_offset = offsetof(step_output, n_logprobs), .max_items = 64, .of = &token_logprob_wire},
    {"prompt_logprobs", 5, WIRE_LIST_STRUCT, .offset = offsetof(step_output, prompt_logprobs), .count_offset = offsetof(step_output, n_prompt_logprobs), .max_items = 65536, .of = &token_logprob_wire},
    {"error", 6, WIRE_STR, .offset = offsetof(step_output, error), .max_bytes = 400},
    {"pooled", 7, WIRE_BLOB, .offset = offsetof(step_output, pooled), .count_offset = offsetof(step_output, n_pooled), .max_items = 131072},
};

static const wire_struct step_output_wire = {"step_output", step_output_fields, COUNT(step_output_fields), sizeof(step_output), &step_output_defaults};

const text_top text_top_defaults = {0};

static const wire_field text_top_fields[] = {
    {"token", 1, WIRE_U32, .offset = offsetof(text_top, token)},
    {"logprob", 2, WIRE_F32, .offset = offsetof(text_top, logprob)},
    {"bytes", 3, WIRE_BYTES, .offset = offsetof(text_top, bytes), .max_bytes = 1024},
};

static const wire_struct text_top_wire = {"text_top", text_top_fields, COUNT(text_top_fields), sizeof(text_top), &text_top_defaults};

const text_logprob text_logprob_defaults = {0};

static const wire_field text_logprob_fields[] = {
    {"token", 1, WIRE_U32, .offset = offsetof(text_logprob, token)},
    {"logprob", 2, WIRE_F32, .offset = offsetof(text_logprob, logprob)},
    {"bytes", 3, WIRE_BYTES, .offset = offsetof(text_logprob, bytes), .max_bytes = 1024},
    {"top", 4, WIRE_LIST_STRUCT, .offset = offsetof(text_logprob, top), .count_offset = offsetof(text_logprob, n_top), .max_items = 64, .of = &text_top_wire},
    {"text_offset", 5, WIRE_U32, .offset = offsetof(text_logprob, text_offset)},
    {"no_logprob", 6, WIRE_BOOL, .offset = offsetof(text_logprob, no_logprob)},
};

static const wire_struct text_logprob_wire = {"text_logprob", text_logprob_fields, COUNT(text_logprob_fields), sizeof(text_logprob), &text_logprob_defaults};

const usage usage_defaults = {0};

static const wire_field usage_fields[] = {
    {"prompt_tokens", 1, WIRE_U32, .offset = offsetof(usage, prompt_tokens)},
    {"completion_tokens", 2, WIRE_U32, .offset = offsetof(usage, completion_tokens)},
    {"cached_tokens", 3, WIRE_U32, .offset = offsetof(usage, cached_tokens)},
    {"drafted_tokens", 4, WIRE_U32, .offset = offsetof(usage, drafted_tokens)},
    {"accepted_tokens", 5, WIRE_U32, .offset = offsetof(usage, accepted_tokens)},
};

static const wire_struct usage_wire = {"usage", usage_fields, COUNT(usage_fields), sizeof(usage), &usage_defaults};

const node_hello node_hello_defaults = {0};

static const wire_field node_hello_fields[] = {
    {"name", 1, WIRE_STR, .offset = offsetof(node_hello, name), .required = true, .max_bytes = 64},
    {"role", 2, WIRE_ENUM, .offset = offsetof(node_hello, role), .required = true, .n_enum = 8},
    {"incarnation", 3, WIRE_U64, .offset = offsetof(node_hello, incarnation), .required = true},
    {"protocol_min", 4, WIRE_U32, .offset = offsetof(node_hello, protocol_min), .required = true},
    {"protocol_max", 5, WIRE_U32, .offset = offsetof(node_hello, protocol_max), .required = true},
    {"features", 6, WIRE_LIST_STR, .offset = offsetof(node_hello, features), .count_offset = offsetof(node_hello, n_features), .max_items = 32, .max_bytes = 64},
    {"credits", 7, WIRE_U32, .offset = offsetof(node_hello, credits)},
    {"epoch", 8, WIRE_U64, .offset = offsetof(node_hello, epoch)},
    {"version", 9, WIRE_STR, .offset = offsetof(node_hello, version), .max_bytes = 32},
};

static const wire_struct node_hello_wire = {"node.hello", node_hello_fields, COUNT(node_hello_fields), sizeof(node_hello), &node_hello_defaults};

const node_welcome node_welcome_defaults = {0};

static const wire_field node_welcome_fields[] = {
    {"name", 1, WIRE_STR, .offset = offsetof(node_welcome, name), .required = true, .max_bytes = 64},
    {"role", 2, WIRE_ENUM, .offset = offsetof(node_welcome, role), .required = true, .n_enum = 8},
    {"incarnation", 3, WIRE_U64, .offset = offsetof(node_welcome, incarnation), .required = true},
    {"protocol", 4, WIRE_U32, .offset = offsetof(node_welcome, protocol), .required = true},
    {"features", 5, WIRE_LIST_STR, .offset = offsetof(node_welcome, features), .count_offset = offsetof(node_welcome, n_features), .max_items = 32, .max_bytes = 64},
    {"credits", 6, WIRE_U32, .offset = offsetof(node_welcome, credits)},
    {"epoch", 7, WIRE_U64, .offset = offsetof(node_welcome, epoch)},
    {"version", 8, WIRE_STR, .offset = offsetof(node_welcome, version), .max_bytes = 32},
};

static const wire_struct node_welcome_wire = {"node.welcome", node_welcome_fields, COUNT(node_welcome_fields), sizeof(node_welcome), &node_welcome_defaults};

const node_heartbeat node_heartbeat_defaults = {.capacity = 1};

static const wire_field node_heartbeat_fields[] = {
    {"ready", 1, WIRE_BOOL, .offset = offsetof(node_heartbeat, ready)},
    {"load", 2, WIRE_U32, .offset = offsetof(node_heartbeat, load)},
    {"capacity", 3, WIRE_U32, .offset = offsetof(node_heartbeat, capacity)},
    {"draining", 4, WIRE_BOOL, .offset = offsetof(node_heartbeat, draining)},
};

static const wire_struct node_heartbeat_wire = {"node.heartbeat", node_heartbeat_fields, COUNT(node_heartbeat_fields), sizeof(node_heartbeat), &node_heartbeat_defaults};

const node_credit node_credit_defaults = {0};

static const wire_field node_credit_fields[] = {
    {"n", 1, WIRE_U32, .offset = offsetof(node_credit, n), .required = true, .ranged = true, .min = 1.0, .max = 1048576.0},
};

static const wire_struct node_credit_wire = {"node.credit", node_credit_fields, COUNT(node_credit_fields), sizeof(node_credit), &node_credit_defaults};

const node_bye node_bye_defaults = {0};

static const wire_field node_bye_fields[] = {
    {"reason", 1, WIRE_STR, .offset = offsetof(node_bye, reason), .max_bytes = 256},
};

static const wire_struct node_bye_wire = {"node.bye", node_bye_fields, COUNT(node_bye_fields), sizeof(node_bye), &node_bye_defaults};

const node_refused node_refused_defaults = {0};

static const wire_field node_refused_fields[] = {
    {"type", 1, WIRE_U32, .offset = offsetof(node_refused, type)},
    {"code", 2, WIRE_U32, .offset = offsetof(node_refused, code)},
    {"text", 3, WIRE_STR, .offset = offsetof(node_refused, text), .max_bytes = 400},
};

static const wire_struct node_refused_wire = {"node.refused", node_refused_fields, COUNT(node_refused_fields), sizeof(node_refused), &node_refused_defaults};

const text_request text_request_defaults = {.n = 1, .add_generation_prompt = true, .sampling = {.temperature = 1.0f, .top_p = 1.0f, .typical_p = 1.0f, .repetition_penalty = 1.0f, .length_penalty = 1.0f}, .output = {.filter = true}};

static const wire_field text_request_fields[] = {
    {"kind", 1, WIRE_ENUM, .offset = offsetof(text_request, kind), .n_enum = 3},
    {"messages", 2, WIRE_LIST_STRUCT, .offset = offsetof(text_request, messages), .count_offset = offsetof(text_request, n_messages), .max_items = 1024, .of = &chat_message_wire},
    {"prompt", 3, WIRE_STR, .offset = offsetof(text_request, prompt), .max_bytes = 4194304},
    {"prompt_tokens", 4, WIRE_BLOB, .offset = offsetof(text_request, prompt_tokens), .count_offset = offsetof(text_request, n_prompt_tokens), .max_items = 1048576},
    {"model", 5, WIRE_STR, .offset = offsetof(text_request, model), .max_bytes = 256},
    {"max_tokens", 6, WIRE_U32, .offset = offsetof(text_request, max_tokens)},
    {"n", 7, WIRE_U32, .offset = offsetof(text_request, n), .ranged = true, .min = 1.0, .max = 64.0},
    {"sampling", 8, WIRE_STRUCT, .offset = offsetof(text_request, sampling), .of = &sampling_params_wire},
    {"output", 9, WIRE_STRUCT, .offset = offsetof(text_request, output), .of = &output_params_wire},
    {"priority", 10, WIRE_I32, .offset = offsetof(text_request, priority), .ranged = true, .min = -1000.0, .max = 1000.0},
    {"session", 11, WIRE_STR, .offset = offsetof(text_request, session), .max_bytes = 128},
    {"tools_json", 12, WIRE_STR, .offset = offsetof(text_request, tools_json), .max_bytes = 1048576},
    {"template_json", 13, WIRE_STR, .offset = offsetof(text_request, template_json), .max_bytes = 65536},
    {"prompt_logprobs", 14, WIRE_BOOL, .offset = offsetof(text_request, prompt_logprobs)},
    {"draft_tokens", 15, WIRE_U32, .offset = offsetof(text_request, draft_tokens), .ranged = true, .min = 0.0, .max = 16.0},
    {"reply_to", 16, WIRE_STR, .offset = offsetof(text_request, reply_to), .max_bytes = 64},
    {"resume", 17, WIRE_LIST_STRUCT, .offset = offsetof(text_request, resume), .count_offset = offsetof(text_request, n_resume), .max_items = 64, .of = &resume_point_wire},
    {"tenant", 18, WIRE_STR, .offset = offsetof(text_request, tenant), .max_bytes = 64},
    {"add_generation_prompt", 19, WIRE_BOOL, .offset = offsetof(text_request, add_generation_prompt)},
    {"continue_final_message", 20, WIRE_BOOL, .offset = offsetof(text_request, continue_final_message)},
    {"task", 21, WIRE_ENUM, .offset = offsetof(text_request, task), .n_enum = 3},
    {"document", 22, WIRE_STR, .offset = offsetof(text_request, document), .max_bytes = 4194304},
};

static const wire_struct text_request_wire = {"text.request", text_request_fields, COUNT(text_request_fields), sizeof(text_request), &text_request_defaults};

const text_delta text_delta_defaults = {0};

static const wire_field text_delta_fields[] = {
    {"choice", 1, WIRE_U32, .offset = offsetof(text_delta, choice)},
    {"index", 2, WIRE_U32, .offset = offsetof(text_delta, index)},
    {"text", 3, WIRE_STR, .offset = offsetof(text_delta, text), .max_bytes = 8388608},
    {"finish", 4, WIRE_ENUM, .offset = offsetof(text_delta, finish), .n_enum = 8},
    {"logprobs", 5, WIRE_LIST_STRUCT, .offset = offsetof(text_delta, logprobs), .count_offset = offsetof(text_delta, n_logprobs), .max_items = 65536, .of = &text_logprob_wire},
    {"usage", 6, WIRE_STRUCT, .offset = offsetof(text_delta, usage), .of = &usage_wire},
    {"tokens", 7, WIRE_BLOB, .offset = offsetof(text_delta, tokens), .count_offset = offsetof(text_delta, n_tokens), .max_items = 1048576},
    {"stop_reason", 8, WIRE_STR, .offset = offsetof(text_delta, stop_reason), .max_bytes = 256},
    {"error", 9, WIRE_STR, .offset = offsetof(text_delta, error), .max_bytes = 400},
    {"prompt", 10, WIRE_BOOL, .offset = offsetof(text_delta, prompt)},
    {"pooled", 11, WIRE_BLOB, .offset = offsetof(text_delta, pooled), .count_offset = offsetof(text_delta, n_pooled), .max_items = 131072},
};

static const wire_struct text_delta_wire = {"text.delta", text_delta_fields, COUNT(text_delta_fields), sizeof(text_delta), &text_delta_defaults};

const text_refused text_refused_defaults = {0};

static const wire_field text_refused_fields[] = {
    {"code", 1, WIRE_U32, .offset = offsetof(text_refused, code), .required = true},
    {"text", 2, WIRE_STR, .offset = offsetof(text_refused, text), .max_bytes = 400},
    {"field", 3, WIRE_STR, .offset = offsetof(text_refused, field), .max_bytes = 64},
    {"retry_after_ms", 4, WIRE_U32, .offset = offsetof(text_refused, retry_after_ms)},
};

static const wire_struct text_refused_wire = {"text.refused", text_refused_fields, COUNT(text_refused_fields), sizeof(text_refused), &text_refused_defaults};

const text_cancel text_cancel_defaults = {0};

static const wire_struct text_cancel_wire = {"text.cancel", NULL, 0, sizeof(text_cancel), &text_cancel_defaults};

const text_encode text_encode_defaults = {.add_generation_prompt = true};

static const wire_field text_encode_fields[] = {
    {"kind", 1, WIRE_ENUM, .offset = offsetof(text_encode, kind), .n_enum = 3},
    {"messages", 2, WIRE_LIST_STRUCT, .offset = offsetof(text_encode, messages), .count_offset = offsetof(text_encode, n_messages), .max_items = 1024, .of = &chat_message_wire},
    {"prompt", 3, WIRE_STR, .offset = offsetof(text_encode, prompt), .max_bytes = 4194304},
    {"special_tokens", 4, WIRE_BOOL, .offset = offsetof(text_encode, special_tokens)},
    {"add_generation_prompt", 5, WIRE_BOOL, .offset = offsetof(text_encode, add_generation_prompt)},
};

static const wire_struct text_encode_wire = {"text.encode", text_encode_fields, COUNT(text_encode_fields), sizeof(text_encode), &text_encode_defaults};

const text_encoded text_encoded_defaults = {0};

static const wire_field text_encoded_fields[] = {
    {"tokens", 1, WIRE_BLOB, .offset = offsetof(text_encoded, tokens), .count_offset = offsetof(text_encoded, n_tokens), .max_items = 1048576},
    {"max_model_len", 2, WIRE_U32, .offset = offsetof(text_encoded, max_model_len)},
};

static const wire_struct text_encoded_wire = {"text.encoded", text_encoded_fields, COUNT(text_encoded_fields), sizeof(text_encoded), &text_encoded_defaults};

const text_decode text_decode_defaults = {0};

static const wire_field text_decode_fields[] = {
    {"tokens", 1, WIRE_BLOB, .offset = offsetof(text_decode, tokens), .count_offset = offsetof(text_decode, n_tokens), .max_items = 1048576},
};

static const wire_struct text_decode_wire = {"text.decode", text_decode_fields, COUNT(text_decode_fields), sizeof(text_decode), &text_decode_defaults};

const text_decoded text_decoded_defaults = {0};

static const wire_field text_decoded_fields[] = {
    {"text", 1, WIRE_STR, .offset = offsetof(text_decoded, text), .max_bytes = 8388608},
};

static const wire_struct text_decoded_wire = {"text.decoded", text_decoded_fields, COUNT(text_decoded_fields), sizeof(text_decoded), &text_decoded_defaults};

const gen_request gen_request_defaults = {.n = 1, .sampling = {.temperature = 1.0f, .top_p = 1.0f, .typical_p = 1.0f, .repetition_penalty = 1.0f, .length_penalty = 1.0f}, .output = {.filter = true}};

static const wire_field gen_request_fields[] = {
    {"prompt", 1, WIRE_BLOB, .offset = offsetof(gen_request, prompt), .required = true, .count_offset = offsetof(gen_request, n_prompt), .max_items = 1048576},
    {"max_tokens", 2, WIRE_U32, .offset = offsetof(gen_request, max_tokens), .required = true, .ranged = true, .min = 0.0, .max = 4294967295.0},
    {"n", 3, WIRE_U32, .offset = offsetof(gen_request, n), .ranged = true, .min = 1.0, .max = 64.0},
    {"sampling", 4, WIRE_STRUCT, .offset = offsetof(gen_request, sampling), .of = &sampling_params_wire},
    {"output", 5, WIRE_STRUCT, .offset = offsetof(gen_request, output), .of = &output_params_wire},
    {"stop_tokens", 6, WIRE_BLOB, .offset = offsetof(gen_request, stop_tokens), .count_offset = offsetof(gen_request, n_stop_tokens), .max_items = 64},
    {"priority", 7, WIRE_I32, .offset = offsetof(gen_request, priority), .ranged = true, .min = -1000.0, .max = 1000.0},
    {"session", 8, WIRE_STR, .offset = offsetof(gen_request, session), .max_bytes = 128},
    {"prompt_logprobs", 9, WIRE_BOOL, .offset = offsetof(gen_request, prompt_logprobs)},
    {"draft_tokens", 10, WIRE_U32, .offset = offsetof(gen_request, draft_tokens), .ranged = true, .min = 0.0, .max = 16.0},
    {"reply_to", 11, WIRE_STR, .offset = offsetof(gen_request, reply_to), .required = true, .max_bytes = 64},
    {"resume", 12, WIRE_LIST_STRUCT, .offset = offsetof(gen_request, resume), .count_offset = offsetof(gen_request, n_resume), .max_items = 64, .of = &resume_point_wire},
    {"tenant", 13, WIRE_STR, .offset = offsetof(gen_request, tenant), .max_bytes = 64},
    {"pooled", 14, WIRE_BOOL, .offset = offsetof(gen_request, pooled)},
    {"second_start", 15, WIRE_U32, .offset = offsetof(gen_request, second_start)},
};

static const wire_struct gen_request_wire = {"gen.request", gen_request_fields, COUNT(gen_request_fields), sizeof(gen_request), &gen_request_defaults};

const gen_open gen_open_defaults = {.n = 1, .output = {.filter = true}};

static const wire_field gen_open_fields[] = {
    {"n", 1, WIRE_U32, .offset = offsetof(gen_open, n)},
    {"output", 2, WIRE_STRUCT, .offset = offsetof(gen_open, output), .of = &output_params_wire},
    {"reply_to", 3, WIRE_STR, .offset = offsetof(gen_open, reply_to), .required = true, .max_bytes = 64},
    {"prompt", 4, WIRE_BLOB, .offset = offsetof(gen_open, prompt), .count_offset = offsetof(gen_open, n_prompt), .max_items = 1048576},
    {"n_prompt_tokens", 5, WIRE_U32, .offset = offsetof(gen_open, n_prompt_tokens)},
    {"resume", 6, WIRE_LIST_STRUCT, .offset = offsetof(gen_open, resume), .count_offset = offsetof(gen_open, n_resume), .max_items = 64, .of = &resume_point_wire},
    {"logprobs", 7, WIRE_BOOL, .offset = offsetof(gen_open, logprobs)},
};

static const wire_struct gen_open_wire = {"gen.open", gen_open_fields, COUNT(gen_open_fields), sizeof(gen_open), &gen_open_defaults};

const gen_tokens gen_tokens_defaults = {0};

static const wire_field gen_tokens_fields[] = {
    {"choice", 1, WIRE_U32, .offset = offsetof(gen_tokens, choice)},
    {"index", 2, WIRE_U32, .offset = offsetof(gen_tokens, index)},
    {"tokens", 3, WIRE_BLOB, .offset = offsetof(gen_tokens, tokens), .count_offset = offsetof(gen_tokens, n_tokens), .max_items = 65536},
    {"finish", 4, WIRE_ENUM, .offset = offsetof(gen_tokens, finish), .n_enum = 8},
    {"logprobs", 5, WIRE_LIST_STRUCT, .offset = offsetof(gen_tokens, logprobs), .count_offset = offsetof(gen_tokens, n_logprobs), .max_items = 65536, .of = &token_logprob_wire},
    {"cached_tokens", 6, WIRE_U32, .offset = offsetof(gen_tokens, cached_tokens)},
    {"drafted_tokens", 7, WIRE_U32, .offset = offsetof(gen_tokens, drafted_tokens)},
    {"accepted_tokens", 8, WIRE_U32, .offset = offsetof(gen_tokens, accepted_tokens)},
    {"error", 9, WIRE_STR, .offset = offsetof(gen_tokens, error), .max_bytes = 400},
};

static const wire_struct gen_tokens_wire = {"gen.tokens", gen_tokens_fields, COUNT(gen_tokens_fields), sizeof(gen_tokens), &gen_tokens_defaults};

const gen_prompt gen_prompt_defaults = {0};

static const wire_field gen_prompt_fields[] = {
    {"index", 1, WIRE_U32, .offset = offsetof(gen_prompt, index)},
    {"logprobs", 2, WIRE_LIST_STRUCT, .offset = offsetof(gen_prompt, logprobs), .count_offset = offsetof(gen_prompt, n_logprobs), .max_items = 65536, .of = &token_logprob_wire},
};

static const wire_struct gen_prompt_wire = {"gen.prompt", gen_prompt_fields, COUNT(gen_prompt_fields), sizeof(gen_prompt), &gen_prompt_defaults};

const gen_cancel gen_cancel_defaults = {0};

static const wire_field gen_cancel_fields[] = {
    {"choice", 1, WIRE_U32, .offset = offsetof(gen_cancel, choice)},
    {"all", 2, WIRE_BOOL, .offset = offsetof(gen_cancel, all)},
    {"reason", 3, WIRE_ENUM, .offset = offsetof(gen_cancel, reason), .n_enum = 7},
};

static const wire_struct gen_cancel_wire = {"gen.cancel", gen_cancel_fields, COUNT(gen_cancel_fields), sizeof(gen_cancel), &gen_cancel_defaults};

const gen_find gen_find_defaults = {0};

static const wire_field gen_find_fields[] = {
    {"round", 1, WIRE_U32, .offset = offsetof(gen_find, round)},
    {"requests", 2, WIRE_BLOB, .offset = offsetof(gen_find, requests), .count_offset = offsetof(gen_find, n_requests), .max_items = 10240},
};

static const wire_struct gen_find_wire = {"gen.find", gen_find_fields, COUNT(gen_find_fields), sizeof(gen_find), &gen_find_defaults};

const gen_found gen_found_defaults = {0};

static const wire_field gen_found_fields[] = {
    {"round", 1, WIRE_U32, .offset = offsetof(gen_found, round)},
    {"requests", 2, WIRE_BLOB, .offset = offsetof(gen_found, requests), .count_offset = offsetof(gen_found, n_requests), .max_items = 10240},
};

static const wire_struct gen_found_wire = {"gen.found", gen_found_fields, COUNT(gen_found_fields), sizeof(gen_found), &gen_found_defaults};

const executor_ready executor_ready_defaults = {0};

static const wire_field executor_ready_fields[] = {
    {"model", 1, WIRE_STR, .offset = offsetof(executor_ready, model), .max_bytes = 256},
    {"fingerprint", 2, WIRE_U64, .offset = offsetof(executor_ready, fingerprint)},
    {"n_kv_blocks", 3, WIRE_U32, .offset = offsetof(executor_ready, n_kv_blocks), .required = true},
    {"kv_block_tokens", 4, WIRE_U32, .offset = offsetof(executor_ready, kv_block_tokens), .required = true},
    {"n_slots", 5, WIRE_U32, .offset = offsetof(executor_ready, n_slots), .required = true},
    {"n_tokens_max", 6, WIRE_U32, .offset = offsetof(executor_ready, n_tokens_max), .required = true},
    {"n_vocab", 7, WIRE_U32, .offset = offsetof(executor_ready, n_vocab), .required = true},
    {"max_model_len", 8, WIRE_U32, .offset = offsetof(executor_ready, max_model_len), .required = true},
    {"device", 9, WIRE_STR, .offset = offsetof(executor_ready, device), .max_bytes = 128},
    {"n_logit_rows_max", 10, WIRE_U32, .offset = offsetof(executor_ready, n_logit_rows_max), .required = true},
    {"n_pooled", 11, WIRE_U32, .offset = offsetof(executor_ready, n_pooled)},
    {"encoder", 12, WIRE_BOOL, .offset = offsetof(executor_ready, encoder)},
    {"term", 13, WIRE_U64, .offset = offsetof(executor_ready, term)},
    {"serves", 20, WIRE_ENUM, .offset = offsetof(executor_ready, serves), .n_enum = 3},
    {"kv_endpoint", 21, WIRE_STR, .offset = offsetof(executor_ready, kv_endpoint), .max_bytes = 256},
    {"kv_block_bytes", 22, WIRE_U64, .offset = offsetof(executor_ready, kv_block_bytes)},
    {"n_offload_slots", 30, WIRE_U32, .offset = offsetof(executor_ready, n_offload_slots)},
};

static const wire_struct executor_ready_wire = {"executor.ready", executor_ready_fields, COUNT(executor_ready_fields), sizeof(executor_ready), &executor_ready_defaults};

const executor_reset executor_reset_defaults = {0};

static const wire_field executor_reset_fields[] = {
    {"epoch", 1, WIRE_U64, .offset = offsetof(executor_reset, epoch), .required = true},
    {"term", 2, WIRE_U64, .offset = offsetof(executor_reset, term)},
};

static const wire_struct executor_reset_wire = {"executor.reset", executor_reset_fields, COUNT(executor_reset_fields), sizeof(executor_reset), &executor_reset_defaults};

const step_plan step_plan_defaults = {0};

static const wire_field step_plan_fields[] = {
    {"step", 1, WIRE_U64, .offset = offsetof(step_plan, step), .required = true},
    {"closes", 2, WIRE_BLOB, .offset = offsetof(step_plan, closes), .count_offset = offsetof(step_plan, n_closes), .max_items = 4096},
    {"opens", 3, WIRE_LIST_STRUCT, .offset = offsetof(step_plan, opens), .count_offset = offsetof(step_plan, n_opens), .max_items = 4096, .of = &slot_open_wire},
    {"copy_from", 4, WIRE_BLOB, .offset = offsetof(step_plan, copy_from), .count_offset = offsetof(step_plan, n_copy_from), .max_items = 65536},
    {"copy_to", 5, WIRE_BLOB, .offset = offsetof(step_plan, copy_to), .count_offset = offsetof(step_plan, n_copy_to), .max_items = 65536},
    {"entries", 6, WIRE_LIST_STRUCT, .offset = offsetof(step_plan, entries), .count_offset = offsetof(step_plan, n_entries), .max_items = 4096, .of = &step_entry_wire},
    {"saves", 30, WIRE_LIST_STRUCT, .offset = offsetof(step_plan, saves), .count_offset = offsetof(step_plan, n_saves), .max_items = 16384, .of = &kv_offload_move_wire},
    {"loads", 31, WIRE_LIST_STRUCT, .offset = offsetof(step_plan, loads), .count_offset = offsetof(step_plan, n_loads), .max_items = 1024, .of = &kv_offload_move_wire},
};

static const wire_struct step_plan_wire = {"step.plan", step_plan_fields, COUNT(step_plan_fields), sizeof(step_plan), &step_plan_defaults};

const step_result step_result_defaults = {0};

static const wire_field step_result_fields[] = {
    {"step", 1, WIRE_U64, .offset = offsetof(step_result, step), .required = true},
    {"outputs", 2, WIRE_LIST_STRUCT, .offset = offsetof(step_result, outputs), .count_offset = offsetof(step_result, n_outputs), .max_items = 4096, .of = &step_output_wire},
    {"elapsed_us", 3, WIRE_U32, .offset = offsetof(step_result, elapsed_us)},
    {"error", 4, WIRE_STR, .offset = offsetof(step_result, error), .max_bytes = 400},
    {"loaded", 30, WIRE_BLOB, .offset = offsetof(step_result, loaded), .count_offset = offsetof(step_result, n_loaded), .max_items = 1024},
    {"not_loaded", 31, WIRE_BLOB, .offset = offsetof(step_result, not_loaded), .count_offset = offsetof(step_result, n_not_loaded), .max_items = 1024},
    {"load_us", 32, WIRE_U32, .offset = offsetof(step_result, load_us)},
};

static const wire_struct step_result_wire = {"step.result", step_result_fields, COUNT(step_result_fields), sizeof(step_result), &step_result_defaults};

const executor_leave executor_leave_defaults = {0};

static const wire_struct executor_leave_wire = {"executor.leave", NULL, 0, sizeof(executor_leave), &executor_leave_defaults};

const kv_load kv_load_defaults = {0};

static const wire_field kv_load_fields[] = {
    {"load", 1, WIRE_U64, .offset = offsetof(kv_load, load), .required = true},
    {"source", 2, WIRE_STR, .offset = offsetof(kv_load, source), .required = true, .max_bytes = 64},
    {"endpoint", 3, WIRE_STR, .offset = offsetof(kv_load, endpoint), .required = true, .max_bytes = 256},
    {"term", 4, WIRE_U64, .offset = offsetof(kv_load, term), .required = true},
    {"from", 5, WIRE_BLOB, .offset = offsetof(kv_load, from), .count_offset = offsetof(kv_load, n_from), .max_items = 65536},
    {"to", 6, WIRE_BLOB, .offset = offsetof(kv_load, to), .count_offset = offsetof(kv_load, n_to), .max_items = 65536},
};

static const wire_struct kv_load_wire = {"kv.load", kv_load_fields, COUNT(kv_load_fields), sizeof(kv_load), &kv_load_defaults};

const kv_loaded kv_loaded_defaults = {0};

static const wire_field kv_loaded_fields[] = {
    {"load", 1, WIRE_U64, .offset = offsetof(kv_loaded, load), .required = true},
    {"n_blocks", 2, WIRE_U32, .offset = offsetof(kv_loaded, n_blocks)},
    {"elapsed_us", 3, WIRE_U32, .offset = offsetof(kv_loaded, elapsed_us)},
    {"error", 4, WIRE_STR, .offset = offsetof(kv_loaded, error), .max_bytes = 400},
};

static const wire_struct kv_loaded_wire = {"kv.loaded", kv_loaded_fields, COUNT(kv_loaded_fields), sizeof(kv_loaded), &kv_loaded_defaults};

const kv_fetch kv_fetch_defaults = {0};

static const wire_field kv_fetch_fields[] = {
    {"fetch", 1, WIRE_U64, .offset = offsetof(kv_fetch, fetch), .required = true},
    {"first", 2, WIRE_U32, .offset = offsetof(kv_fetch, first)},
    {"term", 3, WIRE_U64, .offset = offsetof(kv_fetch, term), .required = true},
    {"fingerprint", 4, WIRE_U64, .offset = offsetof(kv_fetch, fingerprint), .required = true},
    {"blocks", 5, WIRE_BLOB, .offset = offsetof(kv_fetch, blocks), .count_offset = offsetof(kv_fetch, n_blocks), .max_items = 64},
};

static const wire_struct kv_fetch_wire = {"kv.fetch", kv_fetch_fields, COUNT(kv_fetch_fields), sizeof(kv_fetch), &kv_fetch_defaults};

const kv_blocks kv_blocks_defaults = {0};

static const wire_field kv_blocks_fields[] = {
    {"fetch", 1, WIRE_U64, .offset = offsetof(kv_blocks, fetch), .required = true},
    {"first", 2, WIRE_U32, .offset = offsetof(kv_blocks, first)},
    {"n_blocks", 3, WIRE_U32, .offset = offsetof(kv_blocks, n_blocks)},
    {"data", 4, WIRE_BYTES, .offset = offsetof(kv_blocks, data), .max_bytes = 16777216},
    {"error", 5, WIRE_STR, .offset = offsetof(kv_blocks, error), .max_bytes = 400},
};

static const wire_struct kv_blocks_wire = {"kv.blocks", kv_blocks_fields, COUNT(kv_blocks_fields), sizeof(kv_blocks), &kv_blocks_defaults};

const draft_request draft_request_defaults = {0};

static const wire_field draft_request_fields[] = {
    {"choice", 1, WIRE_U32, .offset = offsetof(draft_request, choice)},
    {"index", 2, WIRE_U32, .offset = offsetof(draft_request, index)},
    {"tokens", 3, WIRE_BLOB, .offset = offsetof(draft_request, tokens), .count_offset = offsetof(draft_request, n_tokens), .max_items = 1048576},
    {"n", 4, WIRE_U32, .offset = offsetof(draft_request, n), .required = true, .ranged = true, .min = 1.0, .max = 16.0},
};

static const wire_struct draft_request_wire = {"draft.request", draft_request_fields, COUNT(draft_request_fields), sizeof(draft_request), &draft_request_defaults};

const draft_reply draft_reply_defaults = {0};

static const wire_field draft_reply_fields[] = {
    {"choice", 1, WIRE_U32, .offset = offsetof(draft_reply, choice)},
    {"length", 2, WIRE_U32, .offset = offsetof(draft_reply, length)},
    {"tokens", 3, WIRE_BLOB, .offset = offsetof(draft_reply, tokens), .count_offset = offsetof(draft_reply, n_tokens), .max_items = 16},
    {"known", 4, WIRE_U32, .offset = offsetof(draft_reply, known)},
};

static const wire_struct draft_reply_wire = {"draft.reply", draft_reply_fields, COUNT(draft_reply_fields), sizeof(draft_reply), &draft_reply_defaults};

const draft_forget draft_forget_defaults = {0};

static const wire_field draft_forget_fields[] = {
    {"choice", 1, WIRE_U32, .offset = offsetof(draft_forget, choice)},
    {"all", 2, WIRE_BOOL, .offset = offsetof(draft_forget, all)},
};

static const wire_struct draft_forget_wire = {"draft.forget", draft_forget_fields, COUNT(draft_forget_fields), sizeof(draft_forget), &draft_forget_defaults};

const status_get status_get_defaults = {0};

static const wire_field status_get_fields[] = {
    {"round", 1, WIRE_U32, .offset = offsetof(status_get, round)},
};

static const wire_struct status_get_wire = {"status.get", status_get_fields, COUNT(status_get_fields), sizeof(status_get), &status_get_defaults};

const status_report status_report_defaults = {0};

static const wire_field status_report_fields[] = {
    {"round", 1, WIRE_U32, .offset = offsetof(status_report, round)},
    {"n_requests", 2, WIRE_U32, .offset = offsetof(status_report, n_requests)},
    {"n_running", 3, WIRE_U32, .offset = offsetof(status_report, n_running)},
    {"n_waiting", 4, WIRE_U32, .offset = offsetof(status_report, n_waiting)},
    {"n_waiting_tokens", 5, WIRE_U64, .offset = offsetof(status_report, n_waiting_tokens)},
    {"executors_in_all", 6, WIRE_U32, .offset = offsetof(status_report, executors_in_all)},
    {"executors", 7, WIRE_LIST_STRUCT, .offset = offsetof(status_report, executors), .count_offset = offsetof(status_report, n_executors), .max_items = 128, .of = &executor_status_wire},
    {"drafters", 8, WIRE_LIST_STRUCT, .offset = offsetof(status_report, drafters), .count_offset = offsetof(status_report, n_drafters), .max_items = 32, .of = &node_status_wire},
    {"tokens_per_s", 9, WIRE_F32, .offset = offsetof(status_report, tokens_per_s), .ranged = true, .min = 0.0f, .max = 1000000000000.0f},
};

static const wire_struct status_report_wire = {"status.report", status_report_fields, COUNT(status_report_fields), sizeof(status_report), &status_report_defaults};

const message_info message_infos[] = {
    {1, "node.hello", 0xff, 0xff, false, &node_hello_wire},
    {2, "node.welcome", 0xff, 0xff, false, &node_welcome_wire},
    {3, "node.heartbeat", 0xff, 0xff, false, &node_heartbeat_wire},
    {4, "node.credit", 0xff, 0xff, false, &node_credit_wire},
    {5, "node.bye", 0xff, 0xff, false, &node_bye_wire},
    {6, "node.refused", 0xff, 0xff, false, &node_refused_wire},
    {16, "text.request", 0x82, 0x6, true, &text_request_wire},
    {17, "text.delta", 0x4a, 0x82, false, &text_delta_wire},
    {18, "text.refused", 0x4e, 0x82, false, &text_refused_wire},
    {19, "text.cancel", 0x80, 0x2, false, &text_cancel_wire},
    {20, "text.encode", 0x82, 0x6, false, &text_encode_wire},
    {21, "text.encoded", 0x6, 0x82, false, &text_encoded_wire},
    {22, "text.decode", 0x82, 0x6, false, &text_decode_wire},
    {23, "text.decoded", 0x6, 0x82, false, &text_decoded_wire},
    {32, "gen.request", 0x4, 0x8, true, &gen_request_wire},
    {33, "gen.open", 0x8, 0x40, true, &gen_open_wire},
    {34, "gen.tokens", 0x8, 0x40, false, &gen_tokens_wire},
    {35, "gen.prompt", 0x8, 0x40, false, &gen_prompt_wire},
    {36, "gen.cancel", 0x46, 0x48, false, &gen_cancel_wire},
    {37, "gen.find", 0x2, 0x4c, false, &gen_find_wire},
    {38, "gen.found", 0x4c, 0x2, false, &gen_found_wire},
    {48, "executor.ready", 0x10, 0x8, false, &executor_ready_wire},
    {49, "executor.reset", 0x8, 0x10, false, &executor_reset_wire},
    {50, "step.plan", 0x8, 0x10, true, &step_plan_wire},
    {51, "step.result", 0x10, 0x8, false, &step_result_wire},
    {52, "executor.leave", 0x10, 0x8, false, &executor_leave_wire},
    {56, "kv.load", 0x8, 0x10, false, &kv_load_wire},
    {57, "kv.loaded", 0x10, 0x8, false, &kv_loaded_wire},
    {58, "kv.fetch", 0x10, 0x10, true, &kv_fetch_wire},
    {59, "kv.blocks", 0x10, 0x10, true, &kv_blocks_wire},
    {64, "draft.request", 0x8, 0x20, true, &draft_request_wire},
    {65, "draft.reply", 0x20, 0x8, false, &draft_reply_wire},
    {66, "draft.forget", 0x8, 0x20, false, &draft_forget_wire},
    {96, "status.get", 0x2, 0x8, false, &status_get_wire},
    {97, "status.report", 0x8, 0x2, false, &status_report_wire},
};

const uint32_t n_message_infos = COUNT(message_infos);

static_assert(sizeof(node_hello) <= MESSAGE_BODY_BYTES_MAX, "node.hello is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(node_welcome) <= MESSAGE_BODY_BYTES_MAX, "node.welcome is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(node_heartbeat) <= MESSAGE_BODY_BYTES_MAX, "node.heartbeat is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(node_credit) <= MESSAGE_BODY_BYTES_MAX, "node.credit is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(node_bye) <= MESSAGE_BODY_BYTES_MAX, "node.bye is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(node_refused) <= MESSAGE_BODY_BYTES_MAX, "node.refused is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(text_request) <= MESSAGE_BODY_BYTES_MAX, "text.request is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(text_delta) <= MESSAGE_BODY_BYTES_MAX, "text.delta is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(text_refused) <= MESSAGE_BODY_BYTES_MAX, "text.refused is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(text_cancel) <= MESSAGE_BODY_BYTES_MAX, "text.cancel is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(text_encode) <= MESSAGE_BODY_BYTES_MAX, "text.encode is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(text_encoded) <= MESSAGE_BODY_BYTES_MAX, "text.encoded is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(text_decode) <= MESSAGE_BODY_BYTES_MAX, "text.decode is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(text_decoded) <= MESSAGE_BODY_BYTES_MAX, "text.decoded is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(gen_request) <= MESSAGE_BODY_BYTES_MAX, "gen.request is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(gen_open) <= MESSAGE_BODY_BYTES_MAX, "gen.open is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(gen_tokens) <= MESSAGE_BODY_BYTES_MAX, "gen.tokens is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(gen_prompt) <= MESSAGE_BODY_BYTES_MAX, "gen.prompt is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(gen_cancel) <= MESSAGE_BODY_BYTES_MAX, "gen.cancel is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(gen_find) <= MESSAGE_BODY_BYTES_MAX, "gen.find is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(gen_found) <= MESSAGE_BODY_BYTES_MAX, "gen.found is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(executor_ready) <= MESSAGE_BODY_BYTES_MAX, "executor.ready is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(executor_reset) <= MESSAGE_BODY_BYTES_MAX, "executor.reset is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(step_plan) <= MESSAGE_BODY_BYTES_MAX, "step.plan is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(step_result) <= MESSAGE_BODY_BYTES_MAX, "step.result is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(executor_leave) <= MESSAGE_BODY_BYTES_MAX, "executor.leave is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(kv_load) <= MESSAGE_BODY_BYTES_MAX, "kv.load is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(kv_loaded) <= MESSAGE_BODY_BYTES_MAX, "kv.loaded is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(kv_fetch) <= MESSAGE_BODY_BYTES_MAX, "kv.fetch is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(kv_blocks) <= MESSAGE_BODY_BYTES_MAX, "kv.blocks is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(draft_request) <= MESSAGE_BODY_BYTES_MAX, "draft.request is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(draft_reply) <= MESSAGE_BODY_BYTES_MAX, "draft.reply is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(draft_forget) <= MESSAGE_BODY_BYTES_MAX, "draft.forget is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(status_get) <= MESSAGE_BODY_BYTES_MAX, "status.get is larger than MESSAGE_BODY_BYTES_MAX");
static_assert(sizeof(status_report) <= MESSAGE_BODY_BYTES_MAX, "status.report is larger than MESSAGE_BODY_BYTES_MAX");

const message_info *message_info_find(uint32_t type)
{
    for (uint32_t i = 0; i < n_message_infos; i++)
        if (message_infos[i].type == type)
            return &message_infos[i];
    return NULL;
}

bool message_encode(uint16_t type, const void *body, wire_writer *out, error *err)
{
    const message_info *info = message_info_find(type);
    assert(info);
    return wire_encode(info->body, body, out, err);
}

bool message_decode(uint32_t type, span bytes, arena *memory, const void **body, error *err)
{
    const message_info *info = message_info_find(type);
    if (!info)
        return error_set(err, ERR_UNSUPPORTED, "message type %u is unknown here", type);
    void *value = arena_take(memory, info->body->size);
    if (!value)
        return error_set(err, ERR_NO_MEMORY, "%s: no memory for a message", info->name);
    *body = value;
    return wire_decode(info->body, bytes, memory, value, err);
}
