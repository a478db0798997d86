/* generated from schemas/ by schemas/codegen.py; do not edit.
 *
 * The messages of the bus as C structs. schemas/REFERENCE.md explains them. */
#ifndef TROUPE_BUS_MESSAGES_H
#define TROUPE_BUS_MESSAGES_H

#include "bus/wire.h"

/* Why somebody asks to end a request. */
typedef enum {
    CANCEL_REASON_CLIENT_LEFT = 0,
    CANCEL_REASON_STOP_STRING = 1,
    CANCEL_REASON_DEADLINE = 2,
    CANCEL_REASON_CONTENT_FILTER = 3,
    CANCEL_REASON_REPETITION = 4,
    CANCEL_REASON_SUPERSEDED = 5,
    CANCEL_REASON_ERROR = 6,
} cancel_reason;

const char *cancel_reason_name(cancel_reason value);

/* What an executor is for - prompts, the tokens after them, or both. */
typedef enum {
    EXECUTOR_ROLE_BOTH = 0,
    EXECUTOR_ROLE_PREFILL = 1,
    EXECUTOR_ROLE_DECODE = 2,
} executor_role;

const char *executor_role_name(executor_role value);

/* Why a choice ended. */
typedef enum {
    FINISH_REASON_NONE = 0,
    FINISH_REASON_STOP = 1,
    FINISH_REASON_LENGTH = 2,
    FINISH_REASON_CANCELLED = 3,
    FINISH_REASON_ERROR = 4,
    FINISH_REASON_CONTENT_FILTER = 5,
    FINISH_REASON_TIMEOUT = 6,
    FINISH_REASON_REPETITION = 7,
} finish_reason;

const char *finish_reason_name(finish_reason value);

/* Rows of a step whose logits are sampled or scored; or, with no logits, the sequence's pooled output. */
typedef enum {
    LOGITS_WANTED_NONE = 0,
    LOGITS_WANTED_LAST = 1,
    LOGITS_WANTED_ALL = 2,
    LOGITS_WANTED_POOLED = 3,
} logits_wanted;

const char *logits_wanted_name(logits_wanted value);

/* Which field of a text.request holds the prompt. */
typedef enum {
    PROMPT_KIND_CHAT = 0,
    PROMPT_KIND_TEXT = 1,
    PROMPT_KIND_TOKENS = 2,
} prompt_kind;

const char *prompt_kind_name(prompt_kind value);

/* What a text.request asks for - text, an embedding of its prompt, or a score of its prompt and document. */
typedef enum {
    REQUEST_TASK_GENERATE = 0,
    REQUEST_TASK_EMBED = 1,
    REQUEST_TASK_SCORE = 2,
} request_task;

const char *request_task_name(request_task value);

/* What a node is. A node has one role; the role decides which messages it may send. */
typedef enum {
    ROLE_UNKNOWN = 0,
    ROLE_GATEWAY = 1,
    ROLE_TOKENIZER = 2,
    ROLE_SCHEDULER = 3,
    ROLE_EXECUTOR = 4,
    ROLE_DRAFTER = 5,
    ROLE_POSTPROCESSOR = 6,
    ROLE_CLIENT = 7,
} role;

const char *role_name(role value);

/* One message of a conversation. */
typedef struct chat_message {
    span role;
    span content;
    span name;
    span tool_call_id;
    span tool_calls_json;  /* a JSON array as the client sent it */
    span reasoning_content;
} chat_message;

extern const chat_message chat_message_defaults;

/* A node as one that it is connected to sees it. */
typedef struct node_status {
    span name;
    span version;
    bool ready;
    bool draining;
    uint64_t connected_ms;  /* for how long */
    uint32_t load;  /* requests in hand */
} node_status;

extern const node_status node_status_defaults;

/* An executor that works for the sender. */
typedef struct executor_status {
    node_status node;
    span model;
    span device;
    uint32_t n_running;  /* sequences in its batch */
    uint32_t n_slots;  /* sequences that it has room for */
    uint32_t n_kv_blocks;
    uint32_t n_kv_blocks_used;  /* held by sequences */
    uint32_t n_kv_blocks_cached;  /* kept for their prefix */
    uint32_t kv_block_tokens;
    float tokens_per_s;
    uint32_t plans_in_flight;
} executor_status;

extern const executor_status executor_status_defaults;

/* A KV block that goes to an offload slot, or comes from there. */
typedef struct kv_offload_move {
    uint32_t block;
    uint32_t slot;
    uint64_t stamp;  /* of what is saved; a load must find the same */
} kv_offload_move;

extern const kv_offload_move kv_offload_move_defaults;

/* Added to one token's logit. */
typedef struct logit_bias {
    uint32_t token;
    float bias;
} logit_bias;

extern const logit_bias logit_bias_defaults;

/* How tokens become text. Opaque to the scheduler, read by the postprocessor. */
typedef struct output_params {
    uint32_t n_stop;
    const span *stop;  /* strings that end a choice */
    bool include_stop;  /* hand out the stop string too */
    bool special_tokens;  /* print control tokens instead of skipping them */
    bool echo;  /* hand out the prompt's text first */
    bool filter;  /* pass the text through the postprocessor's output filter */
    uint32_t repetition_limit;  /* end a choice whose tail repeats this many times; 0 is off */
} output_params;

extern const output_params output_params_defaults;

/* The tokens that an earlier attempt delivered for one choice. */
typedef struct resume_point {
    uint32_t choice;
    uint32_t n_tokens;
    const uint32_t *tokens;
    bool finished;
    uint32_t text_bytes;  /* text that was delivered; it may go on behind the tokens, and is not said again */
} resume_point;

extern const resume_point resume_point_defaults;

/* How tokens are chosen. Defaults are neutral; ranges are checked by the gateway with the field's public name. */
typedef struct sampling_params {
    float temperature;  /* 0 is greedy */
    float top_p;
    uint32_t top_k;  /* 0 keeps all */
    float min_p;
    float typical_p;
    float repetition_penalty;
    float frequency_penalty;
    float presence_penalty;
    uint32_t no_repeat_ngram;  /* bans a token that would repeat an n-gram of this length; 0 is off */
    uint64_t seed;  /* the gateway draws one when the client gives none */
    uint32_t n_logit_bias;
    const logit_bias *logit_bias;
    uint32_t n_top_logprobs;  /* likeliest tokens to report at each position */
    bool logprobs;  /* report the log probability of each chosen token */
    bool ignore_eos;  /* end-of-sequence tokens do not end the choice */
    uint32_t min_tokens;  /* stop tokens are banned before this many */
    uint32_t beam_width;  /* 0: sample; else beam search of this width */
    float length_penalty;  /* beam scores are divided by length to this power */
} sampling_params;

extern const sampling_params sampling_params_defaults;

/* Starts a sequence in a slot. */
typedef struct slot_open {
    uint32_t slot;
    uint32_t n_tokens;
    const uint32_t *tokens;  /* the sequence so far - prompt and output */
    uint32_t n_prompt_tokens;  /* how many of them are prompt */
    sampling_params sampling;
    uint32_t n_stop_tokens;
    const uint32_t *stop_tokens;
    uint64_t seed;  /* the choice's own */
    uint32_t second_start;  /* place of the first token of type 1; 0: all are of type 0 */
} slot_open;

extern const slot_open slot_open_defaults;

/* Rows of one sequence. The tokens come from the slot's history: positions [position, position + n_tokens), where the last of them may be a token that an earlier plan in flight has yet to sample; drafts follow it. */
typedef struct step_entry {
    uint32_t slot;
    uint32_t position;
    uint32_t n_tokens;
    uint32_t n_drafts;
    const uint32_t *drafts;  /* proposed tokens to verify after the last row */
    uint32_t block_start;  /* index in the sequence's block table of blocks[0] */
    uint32_t n_blocks;
    const uint32_t *blocks;  /* new or replaced entries of the block table */
    logits_wanted logits;  /* none: a prompt's chunk; last: sample after it; all: score every row; pooled: of the whole sequence, whose rows these are */
    uint32_t n_append;
    const uint32_t *append;  /* tokens to add to the slot's history first; a beam's choice */
    bool no_sample;  /* logits are wanted for scores only: the slot's history does not grow */
} step_entry;

extern const step_entry step_entry_defaults;

/* One position's log probabilities, of the model's own distribution; those that a beam is scored by, of what its logit edits leave. */
typedef struct token_logprob {
    uint32_t token;
    float logprob;
    uint32_t rank;  /* 0 is the likeliest */
    uint32_t n_top_tokens;
    const uint32_t *top_tokens;
    uint32_t n_top_logprobs;
    const float *top_logprobs;
} token_logprob;

extern const token_logprob token_logprob_defaults;

/* The tokens an entry sampled - one, or one more than the drafts that were right - and scores when asked for. */
typedef struct step_output {
    uint32_t slot;
    uint32_t position;  /* position of tokens[0] in the sequence */
    uint32_t n_tokens;
    const uint32_t *tokens;
    uint32_t n_logprobs;
    const token_logprob *logprobs;  /* one a token */
    uint32_t n_prompt_logprobs;
    const token_logprob *prompt_logprobs;  /* logits all: of the tokens at position+1 .. of the entry's rows */
    span error;  /* this sequence alone failed (no finite logit) */
    uint32_t n_pooled;
    const float *pooled;  /* logits pooled: the embedding, of length 1, or the score */
} step_output;

extern const step_output step_output_defaults;

/* One likely token. */
typedef struct text_top {
    uint32_t token;
    float logprob;
    span bytes;
} text_top;

extern const text_top text_top_defaults;

/* A token_logprob with the bytes of each token, for people. */
typedef struct text_logprob {
    uint32_t token;
    float logprob;
    span bytes;
    uint32_t n_top;
    const text_top *top;
    uint32_t text_offset;  /* where the token's text begins in the choice's text */
    bool no_logprob;  /* the first token of a prompt has none */
} text_logprob;

extern const text_logprob text_logprob_defaults;

/* What one choice cost. */
typedef struct usage {
    uint32_t prompt_tokens;
    uint32_t completion_tokens;
    uint32_t cached_tokens;  /* prompt tokens whose keys and values were already there */
    uint32_t drafted_tokens;
    uint32_t accepted_tokens;  /* drafted tokens that were right */
} usage;

extern const usage usage_defaults;

enum {
    MSG_NODE_HELLO = 1,
    MSG_NODE_WELCOME = 2,
    MSG_NODE_HEARTBEAT = 3,
    MSG_NODE_CREDIT = 4,
    MSG_NODE_BYE = 5,
    MSG_NODE_REFUSED = 6,
    MSG_TEXT_REQUEST = 16,
    MSG_TEXT_DELTA = 17,
    MSG_TEXT_REFUSED = 18,
    MSG_TEXT_CANCEL = 19,
    MSG_TEXT_ENCODE = 20,
    MSG_TEXT_ENCODED = 21,
    MSG_TEXT_DECODE = 22,
    MSG_TEXT_DECODED = 23,
    MSG_GEN_REQUEST = 32,
    MSG_GEN_OPEN = 33,
    MSG_GEN_TOKENS = 34,
    MSG_GEN_PROMPT = 35,
    MSG_GEN_CANCEL = 36,
    MSG_GEN_FIND = 37,
    MSG_GEN_FOUND = 38,
    MSG_EXECUTOR_READY = 48,
    MSG_EXECUTOR_RESET = 49,
    MSG_STEP_PLAN = 50,
    MSG_STEP_RESULT = 51,
    MSG_EXECUTOR_LEAVE = 52,
    MSG_KV_LOAD = 56,
    MSG_KV_LOADED = 57,
    MSG_KV_FETCH = 58,
    MSG_KV_BLOCKS = 59,
    MSG_DRAFT_REQUEST = 64,
    MSG_DRAFT_REPLY = 65,
    MSG_DRAFT_FORGET = 66,
    MSG_STATUS_GET = 96,
    MSG_STATUS_REPORT = 97,
};

/* node.hello, any -> any. The connecting side introduces itself. Answered by node.welcome, or by node.refused when no protocol version is shared. */
typedef struct node_hello {
    span name;  /* role, dash, incarnation in hex: unique, never reused */
    role role;
    uint64_t incarnation;  /* random for each start of a process */
    uint32_t protocol_min;
    uint32_t protocol_max;
    uint32_t n_features;
    const span *features;  /* optional behaviours by name */
    uint32_t credits;  /* messages that cost a credit which the sender of this hello can take now */
    uint64_t epoch;  /* lease epoch of the sender, 0 when it holds none */
    span version;  /* of the program, for people */
} node_hello;

extern const node_hello node_hello_defaults;

/* node.welcome, any -> any. The bound side answers a hello. */
typedef struct node_welcome {
    span name;
    role role;
    uint64_t incarnation;
    uint32_t protocol;  /* the version both will speak */
    uint32_t n_features;
    const span *features;
    uint32_t credits;
    uint64_t epoch;
    span version;
} node_welcome;

extern const node_welcome node_welcome_defaults;

/* node.heartbeat, any -> any. Each second. Three missed and the peer is gone; any other message counts as one. */
typedef struct node_heartbeat {
    bool ready;  /* takes new work */
    uint32_t load;  /* requests in hand */
    uint32_t capacity;  /* of a scheduler: executors that it holds; who chooses among nodes gives each its share */
    bool draining;  /* it finishes what it has, and leaves */
} node_heartbeat;

extern const node_heartbeat node_heartbeat_defaults;

/* node.credit, any -> any. The sender can take `n` more messages that cost a credit. */
typedef struct node_credit {
    uint32_t n;
} node_credit;

extern const node_credit node_credit_defaults;

/* node.bye, any -> any. The sender leaves, or drops this link. Nothing follows. */
typedef struct node_bye {
    span reason;
} node_bye;

extern const node_bye node_bye_defaults;

/* node.refused, any -> any. The receiver could not use a message - unknown type, malformed body, role not allowed, no credit. Never answered. */
typedef struct node_refused {
    uint32_t type;  /* type id of the message refused */
    uint32_t code;  /* an error code of libllm/base/error.h */
    span text;
} node_refused;

extern const node_refused node_refused_defaults;

/* text.request, client, gateway -> gateway, tokenizer. A prompt to continue. The envelope carries request id, attempt and deadline. */
typedef struct text_request {
    prompt_kind kind;
    uint32_t n_messages;
    const chat_message *messages;  /* kind chat */
    span prompt;  /* kind text */
    uint32_t n_prompt_tokens;
    const uint32_t *prompt_tokens;  /* kind tokens */
    span model;  /* empty is the served model */
    uint32_t max_tokens;  /* tokens to generate at most; 0: to the end of the context */
    uint32_t n;  /* choices */
    sampling_params sampling;
    output_params output;
    int32_t priority;  /* lower runs first */
    span session;  /* requests of one session prefer the executor that holds its KV blocks */
    span tools_json;  /* the tools array of a chat request as JSON */
    span template_json;  /* further variables for the chat template, a JSON object */
    bool prompt_logprobs;  /* log probabilities of the prompt's tokens too */
    uint32_t draft_tokens;  /* speculative decoding: drafts to verify a step; 0 is off */
    span reply_to;  /* node that owns the request; set by the gateway */
    uint32_t n_resume;
    const resume_point *resume;  /* what each choice has delivered already */
    span tenant;  /* who pays; salts the prefix cache; set by the gateway from the API key */
    bool add_generation_prompt;
    bool continue_final_message;  /* the last message is an answer to go on with */
    request_task task;  /* embed and score give one text.delta, with `pooled` */
    span document;  /* task score: the text that the prompt, a query, is scored with */
} text_request;

extern const text_request text_request_defaults;

/* text.delta, postprocessor, scheduler, gateway -> gateway, client. Text of one choice, in order. A receiver drops what it has by `index` and asks nothing. */
typedef struct text_delta {
    uint32_t choice;
    uint32_t index;  /* place of the first token that this delta accounts for in the choice's output */
    span text;
    finish_reason finish;
    uint32_t n_logprobs;
    const text_logprob *logprobs;
    usage usage;  /* complete when finish is not none */
    uint32_t n_tokens;
    const uint32_t *tokens;  /* the ids that this delta accounts for */
    span stop_reason;  /* the stop string, or the filter rule, that ended the choice */
    span error;  /* finish error: what happened */
    bool prompt;  /* this delta is the echo of the prompt */
    uint32_t n_pooled;
    const float *pooled;  /* task embed: the embedding, of length 1; score: the score before any sigmoid. From the scheduler itself */
} text_delta;

extern const text_delta text_delta_defaults;

/* text.refused, gateway, tokenizer, scheduler, postprocessor -> gateway, client. The request ends here without an answer. */
typedef struct text_refused {
    uint32_t code;  /* an error code of libllm/base/error.h */
    span text;
    span field;  /* the request field at fault */
    uint32_t retry_after_ms;
} text_refused;

extern const text_refused text_refused_defaults;

/* text.cancel, client -> gateway. The client no longer wants the answer. */
typedef struct text_cancel {
    char nothing;
} text_cancel;

extern const text_cancel text_cancel_defaults;

/* text.encode, client, gateway -> gateway, tokenizer. Text, or a conversation, to token ids without generating. */
typedef struct text_encode {
    prompt_kind kind;
    uint32_t n_messages;
    const chat_message *messages;
    span prompt;
    bool special_tokens;  /* control tokens in the text become control tokens */
    bool add_generation_prompt;
} text_encode;

extern const text_encode text_encode_defaults;

/* text.encoded, tokenizer, gateway -> gateway, client. Answers text.encode. */
typedef struct text_encoded {
    uint32_t n_tokens;
    const uint32_t *tokens;
    uint32_t max_model_len;
} text_encoded;

extern const text_encoded text_encoded_defaults;

/* text.decode, client, gateway -> gateway, tokenizer. Token ids to text. */
typedef struct text_decode {
    uint32_t n_tokens;
    const uint32_t *tokens;
} text_decode;

extern const text_decode text_decode_defaults;

/* text.decoded, tokenizer, gateway -> gateway, client. Answers text.decode. */
typedef struct text_decoded {
    span text;
} text_decoded;

extern const text_decoded text_decoded_defaults;

/* gen.request, tokenizer -> scheduler. A tokenised request to queue. */
typedef struct gen_request {
    uint32_t n_prompt;
    const uint32_t *prompt;
    uint32_t max_tokens;  /* tokens to generate at most; 0 only scores the prompt */
    uint32_t n;
    sampling_params sampling;
    output_params output;
    uint32_t n_stop_tokens;
    const uint32_t *stop_tokens;  /* tokens that end a choice */
    int32_t priority;
    span session;
    bool prompt_logprobs;
    uint32_t draft_tokens;
    span reply_to;  /* gateway that owns the request */
    uint32_t n_resume;
    const resume_point *resume;
    span tenant;  /* salts the prefix cache; as the gateway set it */
    bool pooled;  /* the prompt's pooled output is wanted, and nothing generated: computed in one pass, answered to the gateway by text.delta */
    uint32_t second_start;  /* place in the prompt where the second text of a pair begins; 0: there is one text */
} gen_request;

extern const gen_request gen_request_defaults;

/* gen.open, scheduler -> postprocessor. A request was admitted - how its tokens become text, and who owns it. Always before its first gen.tokens. */
typedef struct gen_open {
    uint32_t n;
    output_params output;
    span reply_to;
    uint32_t n_prompt;
    const uint32_t *prompt;  /* only when the output echoes it */
    uint32_t n_prompt_tokens;
    uint32_t n_resume;
    const resume_point *resume;
    bool logprobs;
} gen_open;

extern const gen_open gen_open_defaults;

/* gen.tokens, scheduler -> postprocessor. New tokens of one choice, in order. A receiver drops what it has by `index`. */
typedef struct gen_tokens {
    uint32_t choice;
    uint32_t index;  /* place of tokens[0] in the choice's output */
    uint32_t n_tokens;
    const uint32_t *tokens;
    finish_reason finish;
    uint32_t n_logprobs;
    const token_logprob *logprobs;
    uint32_t cached_tokens;
    uint32_t drafted_tokens;
    uint32_t accepted_tokens;
    span error;
} gen_tokens;

extern const gen_tokens gen_tokens_defaults;

/* gen.prompt, scheduler -> postprocessor. Log probabilities of prompt tokens, in order; the first token of a prompt has none. Only when asked for. */
typedef struct gen_prompt {
    uint32_t index;  /* place of logprobs[0] in the prompt */
    uint32_t n_logprobs;
    const token_logprob *logprobs;
} gen_prompt;

extern const gen_prompt gen_prompt_defaults;

/* gen.cancel, gateway, postprocessor, tokenizer -> scheduler, postprocessor. The rest is not wanted. Unknown requests are ignored. */
typedef struct gen_cancel {
    uint32_t choice;
    bool all;  /* every choice */
    cancel_reason reason;
} gen_cancel;

extern const gen_cancel gen_cancel_defaults;

/* gen.find, gateway -> tokenizer, scheduler, postprocessor. Nothing has been heard of these requests for a while - do you have them? Always answered by gen.found. */
typedef struct gen_find {
    uint32_t round;
    uint32_t n_requests;
    const uint32_t *requests;  /* five numbers each, the 16 bytes of the id and the attempt */
} gen_find;

extern const gen_find gen_find_defaults;

/* gen.found, tokenizer, scheduler, postprocessor -> gateway. Those that the sender has. Everything that it sent to the gateway of the others was sent before. */
typedef struct gen_found {
    uint32_t round;  /* of the gen.find that this answers */
    uint32_t n_requests;
    const uint32_t *requests;
} gen_found;

extern const gen_found gen_found_defaults;

/* executor.ready, executor -> scheduler. What this executor is and holds. Said to one scheduler at a time, the one that it will work for. */
typedef struct executor_ready {
    span model;
    uint64_t fingerprint;  /* of all that decides a token: weights, config, kind of device, numbers of the KV cache; executors of one scheduler must agree */
    uint32_t n_kv_blocks;
    uint32_t kv_block_tokens;
    uint32_t n_slots;
    uint32_t n_tokens_max;  /* tokens a step */
    uint32_t n_vocab;
    uint32_t max_model_len;
    span device;
    uint32_t n_logit_rows_max;  /* sampled or scored rows a step */
    uint32_t n_pooled;  /* numbers of a pooled output; 0: this executor gives none */
    bool encoder;  /* it generates nothing: pooled outputs alone */
    uint64_t term;  /* numbers the times that this executor offered itself to anybody */
    executor_role serves;  /* what it is for; it can do all */
    span kv_endpoint;  /* where other executors fetch its KV blocks, with its public key behind a #; empty: it neither gives nor takes any */
    uint64_t kv_block_bytes;  /* bytes of one KV block */
    uint32_t n_offload_slots;  /* KV blocks that it can keep in host memory or on disk beside its cache */
} executor_ready;

extern const executor_ready executor_ready_defaults;

/* executor.reset, scheduler -> executor. Forget every slot; plans of this scheduler and epoch follow. */
typedef struct executor_reset {
    uint64_t epoch;
    uint64_t term;  /* of the executor.ready that this answers; of another it is dropped */
} executor_reset;

extern const executor_reset executor_reset_defaults;

/* step.plan, scheduler -> executor. One forward pass. Saves, then loads begin, then closes, then opens, then copies, then entries. */
typedef struct step_plan {
    uint64_t step;
    uint32_t n_closes;
    const uint32_t *closes;  /* slots to forget */
    uint32_t n_opens;
    const slot_open *opens;
    uint32_t n_copy_from;
    const uint32_t *copy_from;  /* KV blocks to copy before the pass */
    uint32_t n_copy_to;
    const uint32_t *copy_to;
    uint32_t n_entries;
    const step_entry *entries;
    uint32_t n_saves;
    const kv_offload_move *saves;  /* KV blocks to keep in offload slots, before anything writes to them */
    uint32_t n_loads;
    const kv_offload_move *loads;  /* KV blocks to fill from offload slots. What becomes of each is said by the result of this plan or of a later one; a plan without entries waits for all */
} step_plan;

extern const step_plan step_plan_defaults;

/* step.result, executor -> scheduler. What the pass of the same step number gave. One output an entry that wanted logits. */
typedef struct step_result {
    uint64_t step;
    uint32_t n_outputs;
    const step_output *outputs;
    uint32_t elapsed_us;
    span error;  /* the pass failed; every entry of it must be run again */
    uint32_t n_loaded;
    const uint32_t *loaded;  /* offload slots whose loads are done since the last result */
    uint32_t n_not_loaded;
    const uint32_t *not_loaded;  /* offload slots that did not hold what was asked for, or could not be read */
    uint32_t load_us;  /* time that these loads took: reading and copying, not waiting */
} step_result;

extern const step_result step_result_defaults;

/* executor.leave, executor -> scheduler. This executor works for another scheduler from now on, or ends. Plans in flight get no results; their credits come back. */
typedef struct executor_leave {
    char nothing;
} executor_leave;

extern const executor_leave executor_leave_defaults;

/* kv.load, scheduler -> executor. Fetch KV blocks from another executor of this scheduler. Answered by kv.loaded. */
typedef struct kv_load {
    uint64_t load;  /* numbers the loads of a scheduler */
    span source;  /* node name of the executor that has them */
    span endpoint;  /* where it listens, as its executor.ready said */
    uint64_t term;  /* of its executor.ready: in another its blocks hold something else */
    uint32_t n_from;
    const uint32_t *from;  /* blocks there */
    uint32_t n_to;
    const uint32_t *to;  /* blocks here, as many */
} kv_load;

extern const kv_load kv_load_defaults;

/* kv.loaded, executor -> scheduler. Ends a kv.load. Its blocks are not written any more. */
typedef struct kv_loaded {
    uint64_t load;
    uint32_t n_blocks;  /* so many of its first blocks are there; all, unless there is an error */
    uint32_t elapsed_us;
    span error;  /* why the rest did not come */
} kv_loaded;

extern const kv_loaded kv_loaded_defaults;

/* kv.fetch, executor -> executor. Asks for the bytes of KV blocks. Answered by kv.blocks. */
typedef struct kv_fetch {
    uint64_t fetch;  /* of the asking executor; in the answer again */
    uint32_t first;  /* the same: place of blocks[0] in what is fetched */
    uint64_t term;  /* the blocks are those of this term of the asked executor */
    uint64_t fingerprint;  /* as in executor.ready: bytes of others mean something else */
    uint32_t n_blocks;
    const uint32_t *blocks;
} kv_fetch;

extern const kv_fetch kv_fetch_defaults;

/* kv.blocks, executor -> executor. Bytes of KV blocks as the paged cache has them, one block after the other; or why they are not given. */
typedef struct kv_blocks {
    uint64_t fetch;
    uint32_t first;
    uint32_t n_blocks;
    span data;
    span error;
} kv_blocks;

extern const kv_blocks kv_blocks_defaults;

/* draft.request, scheduler -> drafter. Propose up to `n` tokens to follow this sequence. */
typedef struct draft_request {
    uint32_t choice;
    uint32_t index;  /* place of tokens[0] in the sequence; the drafter has everything before it, or says so */
    uint32_t n_tokens;
    const uint32_t *tokens;
    uint32_t n;
} draft_request;

extern const draft_request draft_request_defaults;

/* draft.reply, drafter -> scheduler. Answers draft.request. No tokens is a good answer. */
typedef struct draft_reply {
    uint32_t choice;
    uint32_t length;  /* length of the sequence that the drafts continue */
    uint32_t n_tokens;
    const uint32_t *tokens;
    uint32_t known;  /* tokens of the sequence that the drafter holds; when below `index` of the request, send from there */
} draft_reply;

extern const draft_reply draft_reply_defaults;

/* draft.forget, scheduler -> drafter. The sequence ended. */
typedef struct draft_forget {
    uint32_t choice;
    bool all;
} draft_forget;

extern const draft_forget draft_forget_defaults;

/* status.get, gateway -> scheduler. What do you have in hand? Always answered by status.report. */
typedef struct status_get {
    uint32_t round;
} status_get;

extern const status_get status_get_defaults;

/* status.report, scheduler -> gateway. The sender's queue, its executors and its drafters at this moment. */
typedef struct status_report {
    uint32_t round;  /* of the status.get that this answers */
    uint32_t n_requests;
    uint32_t n_running;  /* sequences */
    uint32_t n_waiting;  /* sequences */
    uint64_t n_waiting_tokens;  /* of their prompts */
    uint32_t executors_in_all;  /* that work for it, also those beyond the list */
    uint32_t n_executors;
    const executor_status *executors;
    uint32_t n_drafters;
    const node_status *drafters;
    float tokens_per_s;  /* generated in the last second, of all executors */
} status_report;

extern const status_report status_report_defaults;

/* What the runtime knows of a message type. */
typedef struct {
    uint16_t           type;
    const char        *name;
    uint32_t           from, to; /* masks of 1 << role */
    bool               costs_credit;
    const wire_struct *body;
} message_info;

enum { MESSAGE_BODY_BYTES_MAX = 512 }; /* of the largest struct, without what it points to */

extern const message_info message_infos[]; /* by rising type */
extern const uint32_t     n_message_infos;

/* NULL when there is no such type. */
const message_info *message_info_find(uint32_t type);

/* Appends the encoded body to *out; see wire_encode. */
bool message_encode(uint16_t type, const void *body, wire_writer *out, error *err) MUST_CHECK;

/* Decodes into a struct taken from `memory`; see wire_decode. ERR_UNSUPPORTED when the type is unknown. */
bool message_decode(uint32_t type, span bytes, arena *memory, const void **body, error *err) MUST_CHECK;

#endif
