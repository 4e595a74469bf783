// Block-sparse attention on one CPU: forward and backward, float32, any sizes.
//
// Two products do all the work. `scores` multiplies rows by packed panels (a row-major matrix against the transpose of another,
// which was packed once), `accumulate` multiplies a small tile of numbers by rows. Tiles are at most TILE x TILE and start at
// multiples of TILE on the side that is streamed, so that a tile of keys is always a whole number of panels, less its edges.
//
// Vectors are the compiler's own (as wide as the machine's registers), so one source serves AVX2, AVX-512 and others.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#else
constexpr int LANES = 8;
#endif
constexpr int TILE = 64;
constexpr int ROWS = 6;  // 6 rows by 2 vectors: 12 accumulators hide the latency of the multiply-adds, in 16 registers
constexpr float LOG2E = 1.44269504088896340736f;
constexpr float LN2 = 0.693147180559945309417f;
constexpr float NONE = -std::numeric_limits<float>::infinity();

typedef float Vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef float Reg __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));

inline Reg load(const float* at) { return *reinterpret_cast<const Vec*>(at); }
inline void store(float* at, Reg x) { *reinterpret_cast<Vec*>(at) = x; }
inline Reg all(float x) { return x - Reg{}; }
inline Reg larger(Reg a, Reg b) { return a > b ? a : b; }
inline int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

inline float sum(Reg x) {
    float total = 0;
    for (int i = 0; i < LANES; ++i) total += x[i];
    return total;
}

inline float top(Reg x) {
    float found = x[0];
    for (int i = 1; i < LANES; ++i) found = std::max(found, x[i]);
    return found;
}

// 2^x for x <= 0 or a little above: a polynomial on [-1/2, 1/2], and the whole part put into the exponent
inline Reg exp2(Reg x) {
    x = larger(x, all(-126.0f));
    const Reg magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number in the low bits
    const Reg shifted = x + magic;
    const Reg f = x - (shifted - magic);
    Reg y = all(1.5353362e-4f);
    y = y * f + all(1.3398874e-3f);
    y = y * f + all(9.6184373e-3f);
    y = y * f + all(5.5503324e-2f);
    y = y * f + all(2.4022648e-1f);
    y = y * f + all(6.9314720e-1f);
    y = y * f + all(1.0f);
    return reinterpret_cast<Reg>(reinterpret_cast<Ints>(y) + (reinterpret_cast<Ints>(shifted) << 23));
}

struct Buffer {  // aligned, never cleared
    float* at;
    explicit Buffer(int64_t floats) {
        at = static_cast<float*>(std::aligned_alloc(64, static_cast<size_t>((floats * 4 + 63) / 64 * 64 + 64)));
        if (at == nullptr) throw std::bad_alloc();
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { std::free(at); }
};

// out[r][c] = sum_d a[r][d] * panel(c)[d], two panels at a time
template <int R, int P>
inline void scores_tile(const float* a, int64_t lda, const float* panel, int64_t depth, float* out, int64_t ldo) {
    Reg sums[R][P] = {};
    for (int64_t d = 0; d < depth; ++d) {
        Reg b[P];
        for (int p = 0; p < P; ++p) b[p] = load(panel + (p * depth + d) * LANES);
        for (int r = 0; r < R; ++r) {
            const Reg x = all(a[r * lda + d]);
            for (int p = 0; p < P; ++p) sums[r][p] += x * b[p];
        }
    }
    for (int r = 0; r < R; ++r)
        for (int p = 0; p < P; ++p) store(out + r * ldo + p * LANES, sums[r][p]);
}

// c[r][n] += sum_j a[r][j] * b[j][n]
template <int R, int P>
inline void accumulate_tile(const float* a, int64_t lda, int64_t depth, const float* b, int64_t ldb, float* c, int64_t ldc) {
    Reg sums[R][P];
    for (int r = 0; r < R; ++r)
        for (int p = 0; p < P; ++p) sums[r][p] = load(c + r * ldc + p * LANES);
    for (int64_t j = 0; j < depth; ++j) {
        Reg x[P];
        for (int p = 0; p < P; ++p) x[p] = load(b + j * ldb + p * LANES);
        for (int r = 0; r < R; ++r) {
            const Reg y = all(a[r * lda + j]);
            for (int p = 0; p < P; ++p) sums[r][p] += y * x[p];
        }
    }
    for (int r = 0; r < R; ++r)
        for (int p = 0; p < P; ++p) store(c + r * ldc + p * LANES, sums[r][p]);
}

template <int R>
void scores_rows(const float* a, int64_t lda, const float* panel, int64_t depth, int64_t panels, float* out, int64_t ldo) {
    int64_t p = 0;
    for (; p + 2 <= panels; p += 2) scores_tile<R, 2>(a, lda, panel + p * depth * LANES, depth, out + p * LANES, ldo);
    if (p < panels) scores_tile<R, 1>(a, lda, panel + p * depth * LANES, depth, out + p * LANES, ldo);
}

template <int R>
void accumulate_rows(const float* a, int64_t lda, int64_t depth, const float* b, int64_t ldb, int64_t width, float* c, int64_t ldc) {
    int64_t n = 0;
    for (; n + 2 * LANES <= width; n += 2 * LANES) accumulate_tile<R, 2>(a, lda, depth, b + n, ldb, c + n, ldc);
    if (n < width) accumulate_tile<R, 1>(a, lda, depth, b + n, ldb, c + n, ldc);
}

// call f<R> on strips of ROWS rows, and on what is left
#define STRIPS(rows, call)                          \
    do {                                            \
        int64_t r = 0;                              \
        for (; r + ROWS <= (rows); r += ROWS) {     \
            constexpr int R = ROWS;                 \
            call;                                   \
        }                                           \
        switch ((rows)-r) {                         \
            case 5: { constexpr int R = 5; call; } break; \
            case 4: { constexpr int R = 4; call; } break; \
            case 3: { constexpr int R = 3; call; } break; \
            case 2: { constexpr int R = 2; call; } break; \
            case 1: { constexpr int R = 1; call; } break; \
        }                                           \
    } while (0)

void scores(const float* a, int64_t lda, int64_t rows, const float* panel, int64_t depth, int64_t panels, float* out, int64_t ldo) {
    STRIPS(rows, (scores_rows<R>(a + r * lda, lda, panel, depth, panels, out + r * ldo, ldo)));
}

void accumulate(const float* a, int64_t lda, int64_t rows, int64_t depth, const float* b, int64_t ldb, int64_t width, float* c,
                int64_t ldc) {
    STRIPS(rows, (accumulate_rows<R>(a + r * lda, lda, depth, b, ldb, width, c + r * ldc, ldc)));
}

// rows of x, transposed in panels of LANES: panel p holds x[p * LANES + lane][d] at [d][lane]
void pack(const float* x, int64_t tokens, int64_t dim, int64_t panel, float* to) {
    const int64_t first = panel * LANES, count = std::min<int64_t>(LANES, tokens - first);
    float* at = to + first * dim;
    for (int64_t lane = 0; lane < count; ++lane)
        for (int64_t d = 0; d < dim; ++d) at[d * LANES + lane] = x[(first + lane) * dim + d];
    for (int64_t lane = count; lane < LANES; ++lane)
        for (int64_t d = 0; d < dim; ++d) at[d * LANES + lane] = 0.0f;
}

void pack_all(const float* x, int64_t heads, int64_t tokens, int64_t dim, int threads, float* to) {
    const int64_t panels = padded(tokens) / LANES;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (int64_t h = 0; h < heads; ++h)
        for (int64_t p = 0; p < panels; ++p) pack(x + h * tokens * dim, tokens, dim, p, to + h * panels * LANES * dim);
}

// rows whose length is a whole number of vectors: the rows themselves where they are, else a copy with zeros behind
const float* widened(const float* x, int64_t rows, int64_t dim, int64_t wide, float* room) {
    if (dim == wide) return x;
    for (int64_t r = 0; r < rows; ++r) {
        std::memcpy(room + r * wide, x + r * dim, static_cast<size_t>(dim) * 4);
        std::fill(room + r * wide + dim, room + (r + 1) * wide, 0.0f);
    }
    return room;
}

void narrow(const float* x, int64_t rows, int64_t dim, int64_t wide, float* to) {
    for (int64_t r = 0; r < rows; ++r) std::memcpy(to + r * dim, x + r * wide, static_cast<size_t>(dim) * 4);
}

}  // namespace

extern "C" {

// Who reads what: rows are (head, block) pairs, each a list of runs [start, stop) on the streamed side, with a log weight or none.
struct Runs {
    int64_t heads;          // that the rows tell apart: 1, or as many as there are
    int64_t blocks;         // of a head, on the side of the rows
    int64_t start_heads;    // 1 or heads: whose `starts` differ
    const int64_t* starts;  // (start_heads, blocks + 1)
    const int32_t* indptr;
    const int32_t* start;
    const int32_t* stop;
    const float* weight;  // may be null
};

struct Shape {
    int64_t heads;  // of queries
    int64_t group;  // query heads that share a key head
    int64_t queries;
    int64_t keys;
    int64_t dim;    // of q and k
    int64_t value;  // of v
    int64_t threads;
    float scale;
};

}  // extern "C"

namespace {

// [start, stop) cut at multiples of TILE
template <typename F>
inline void tiles(int64_t start, int64_t stop, F&& f) {
    while (start < stop) {
        const int64_t end = std::min(stop, (start / TILE + 1) * TILE);
        f(start, end);
        start = end;
    }
}

// every tile of the streamed side that a row reads: f(first, last, bias in units of log 2)
template <typename F>
inline void stream(const Runs& runs, int64_t row, F&& f) {
    for (int64_t e = runs.indptr[row]; e < runs.indptr[row + 1]; ++e) {
        const float bias = runs.weight == nullptr ? 0.0f : runs.weight[e] * LOG2E;
        tiles(runs.start[e], runs.stop[e], [&](int64_t a, int64_t b) { f(a, b, bias); });
    }
}

inline int64_t row_of(const Runs& runs, int64_t head, int64_t block) { return (runs.heads > 1 ? head : 0) * runs.blocks + block; }

inline const int64_t* bounds(const Runs& runs, int64_t head, int64_t block) {
    return runs.starts + (runs.start_heads > 1 ? head : 0) * (runs.blocks + 1) + block;
}

// the panels that cover [a, b): first column in the packed matrix, number of panels, and columns before a
struct Cover {
    int64_t first, panels, skip;
    Cover(int64_t a, int64_t b) : first(a / LANES * LANES), panels((padded(b) - first) / LANES), skip(a - first) {}
};

struct Softmax {  // of one tile of queries, online
    float high[TILE], total[TILE];

    // scores in, exp2(score - row maximum) out; the output so far is scaled to the new maximum
    void update(float* s, int64_t lds, int64_t rows, const Cover& cover, int64_t count, float bias, float* out, int64_t wide) {
        for (int64_t r = 0; r < rows; ++r) {
            float* at = s + r * lds;
            for (int64_t c = 0; c < cover.skip; ++c) at[c] = NONE;
            for (int64_t c = cover.skip + count; c < cover.panels * LANES; ++c) at[c] = NONE;
            Reg most = load(at);
            for (int64_t p = 1; p < cover.panels; ++p) most = larger(most, load(at + p * LANES));
            const float now = std::max(high[r], top(most) + bias);
            if (now > high[r]) {
                const float shrink = high[r] == NONE ? 0.0f : exp2f(high[r] - now);
                total[r] *= shrink;
                for (int64_t d = 0; d < wide; d += LANES) store(out + r * wide + d, load(out + r * wide + d) * shrink);
                high[r] = now;
            }
            const Reg shift = all(now - bias);
            Reg sums = {};
            for (int64_t p = 0; p < cover.panels; ++p) {
                const Reg y = exp2(load(at + p * LANES) - shift);
                store(at + p * LANES, y);
                sums += y;
            }
            total[r] += sum(sums);
        }
    }
};

struct Forward {
    const Shape& shape;
    const Runs& runs;
    const float *q, *packed, *v;
    float *out, *lse;

    void operator()(int64_t head, int64_t block) const {
        const int64_t wide = padded(shape.value), each = head / shape.group, room = TILE;
        const float* panels = packed + each * padded(shape.keys) * shape.dim;
        const float* values = v + each * shape.keys * shape.value;
        const int64_t* bound = bounds(runs, head, block);
        Buffer rows(TILE * shape.dim), s(TILE * room), sums(TILE * wide), copy(shape.value == wide ? 0 : TILE * wide);
        for (int64_t first = bound[0]; first < bound[1]; first += TILE) {
            const int64_t count = std::min<int64_t>(TILE, bound[1] - first), from = head * shape.queries + first;
            for (int64_t i = 0; i < count * shape.dim; ++i) rows.at[i] = q[from * shape.dim + i] * (shape.scale * LOG2E);
            std::fill(sums.at, sums.at + count * wide, 0.0f);
            Softmax softmax;
            std::fill(softmax.high, softmax.high + TILE, NONE);
            std::fill(softmax.total, softmax.total + TILE, 0.0f);
            stream(runs, row_of(runs, head, block), [&](int64_t a, int64_t b, float bias) {
                const Cover cover(a, b);
                scores(rows.at, shape.dim, count, panels + cover.first * shape.dim, shape.dim, cover.panels, s.at, room);
                softmax.update(s.at, room, count, cover, b - a, bias, sums.at, wide);
                const float* tile = widened(values + a * shape.value, b - a, shape.value, wide, copy.at);
                accumulate(s.at + cover.skip, room, count, b - a, tile, wide, wide, sums.at, wide);
            });
            for (int64_t r = 0; r < count; ++r) {
                const float total = softmax.total[r], share = total > 0 ? 1.0f / total : 0.0f;
                for (int64_t d = 0; d < shape.value; ++d) out[(from + r) * shape.value + d] = sums.at[r * wide + d] * share;
                lse[from + r] = total > 0 ? softmax.high[r] * LN2 + std::log(total) : NONE;
            }
        }
    }
};

// p and ds of one tile: rows on one side, columns on the other. lse (in units of log 2) and delta belong to the queries, which are
// the rows when `along_rows`, else the columns, whose entries then start at the cover's first.
struct Gradient {
    float scale, bias;
    bool along_rows;
    const float *lse, *delta;

    void operator()(float* s, float* dp, int64_t ld, int64_t rows, const Cover& cover) const {
        for (int64_t r = 0; r < rows; ++r) {
            float *at = s + r * ld, *grad = dp + r * ld;
            for (int64_t p = 0; p < cover.panels; ++p) {
                const Reg shift = along_rows ? all(lse[r] - bias) : load(lse + p * LANES) - bias;
                const Reg less = along_rows ? all(delta[r]) : load(delta + p * LANES);
                const Reg y = exp2(load(at + p * LANES) - shift);
                store(at + p * LANES, y);
                store(grad + p * LANES, y * (load(grad + p * LANES) - less) * scale);
            }
        }
    }
};

struct BackwardQueries {  // dq, by query tiles
    const Shape& shape;
    const Runs& runs;
    const float *q, *k, *d_out, *packed_k, *packed_v, *lse, *delta;
    float* dq;

    void operator()(int64_t head, int64_t block) const {
        const int64_t wide = padded(shape.dim), each = head / shape.group, room = TILE, columns = padded(shape.keys);
        const int64_t* bound = bounds(runs, head, block);
        Buffer rows(TILE * shape.dim), s(TILE * room), dp(TILE * room), sums(TILE * wide), copy(shape.dim == wide ? 0 : TILE * wide);
        for (int64_t first = bound[0]; first < bound[1]; first += TILE) {
            const int64_t count = std::min<int64_t>(TILE, bound[1] - first), from = head * shape.queries + first;
            for (int64_t i = 0; i < count * shape.dim; ++i) rows.at[i] = q[from * shape.dim + i] * (shape.scale * LOG2E);
            float shift[TILE];
            for (int64_t r = 0; r < count; ++r) shift[r] = lse[from + r] * LOG2E;
            std::fill(sums.at, sums.at + count * wide, 0.0f);
            stream(runs, row_of(runs, head, block), [&](int64_t a, int64_t b, float bias) {
                const Cover cover(a, b);
                scores(rows.at, shape.dim, count, packed_k + (each * columns + cover.first) * shape.dim, shape.dim, cover.panels, s.at, room);
                scores(d_out + from * shape.value, shape.value, count, packed_v + (each * columns + cover.first) * shape.value, shape.value,
                       cover.panels, dp.at, room);
                Gradient{shape.scale, bias, true, shift, delta + from}(s.at, dp.at, room, count, cover);
                const float* tile = widened(k + (each * shape.keys + a) * shape.dim, b - a, shape.dim, wide, copy.at);
                accumulate(dp.at + cover.skip, room, count, b - a, tile, wide, wide, sums.at, wide);
            });
            narrow(sums.at, count, shape.dim, wide, dq + from * shape.dim);
        }
    }
};

struct BackwardKeys {  // dk and dv, by key tiles: each is written by one thread, so nothing is added atomically
    const Shape& shape;
    const Runs& runs;  // of the transposed index
    const float *q, *k, *v, *d_out, *packed_q, *packed_d, *lse, *delta;
    float *dk, *dv;

    // key tiles of one block of one query head; what its group's other heads add comes one after another
    void operator()(int64_t head, int64_t block) const {
        const int64_t wide = padded(shape.dim), wide_v = padded(shape.value), each = head / shape.group, room = TILE;
        const int64_t columns = padded(shape.queries);
        const int64_t* bound = bounds(runs, head, block);
        Buffer rows(TILE * shape.dim), s(TILE * room), dp(TILE * room), sums(TILE * wide), sums_v(TILE * wide_v);
        Buffer copy(shape.dim == wide ? 0 : TILE * wide), copy_v(shape.value == wide_v ? 0 : TILE * wide_v);
        for (int64_t first = bound[0]; first < bound[1]; first += TILE) {
            const int64_t count = std::min<int64_t>(TILE, bound[1] - first), from = each * shape.keys + first;
            for (int64_t i = 0; i < count * shape.dim; ++i) rows.at[i] = k[from * shape.dim + i] * (shape.scale * LOG2E);
            std::fill(sums.at, sums.at + count * wide, 0.0f);
            std::fill(sums_v.at, sums_v.at + count * wide_v, 0.0f);
            stream(runs, row_of(runs, head, block), [&](int64_t a, int64_t b, float bias) {
                const Cover cover(a, b);
                const int64_t at = head * columns + cover.first;
                scores(rows.at, shape.dim, count, packed_q + at * shape.dim, shape.dim, cover.panels, s.at, room);
                scores(v + from * shape.value, shape.value, count, packed_d + at * shape.value, shape.value, cover.panels, dp.at, room);
                Gradient{shape.scale, bias, false, lse + at, delta + at}(s.at, dp.at, room, count, cover);
                const int64_t query = head * shape.queries + a;
                accumulate(s.at + cover.skip, room, count, b - a,
                           widened(d_out + query * shape.value, b - a, shape.value, wide_v, copy_v.at), wide_v, wide_v, sums_v.at, wide_v);
                accumulate(dp.at + cover.skip, room, count, b - a, widened(q + query * shape.dim, b - a, shape.dim, wide, copy.at), wide,
                           wide, sums.at, wide);
            });
            for (int64_t r = 0; r < count; ++r) {
                for (int64_t d = 0; d < shape.dim; ++d) dk[(from + r) * shape.dim + d] += sums.at[r * wide + d];
                for (int64_t d = 0; d < shape.value; ++d) dv[(from + r) * shape.value + d] += sums_v.at[r * wide_v + d];
            }
        }
    }
};

template <typename F>
bool guarded(F&& f) {  // an exception must not leave a parallel region, nor this library
    try {
        f();
        return true;
    } catch (const std::bad_alloc&) {
        return false;
    }
}

}  // namespace

extern "C" {

int attention_forward(const Shape* shape, const Runs* runs, const float* q, const float* k, const float* v, float* out, float* lse) {
    const int threads = static_cast<int>(shape->threads);
    bool fine = true;
    const bool had_room = guarded([&] {
        const int64_t key_heads = shape->heads / shape->group;
        Buffer packed(key_heads * padded(shape->keys) * shape->dim);
        pack_all(k, key_heads, shape->keys, shape->dim, threads, packed.at);
        const Forward work{*shape, *runs, q, packed.at, v, out, lse};
#pragma omp parallel for collapse(2) schedule(dynamic, 1) num_threads(threads) reduction(&& : fine)
        for (int64_t head = 0; head < shape->heads; ++head)
            for (int64_t block = 0; block < runs->blocks; ++block) fine = guarded([&] { work(head, block); }) && fine;
    });
    return had_room && fine ? 0 : 1;
}

// dk and dv must be cleared: heads of a group add to them
int attention_backward(const Shape* shape, const Runs* runs, const Runs* swapped, const float* q, const float* k, const float* v,
                       const float* lse, const float* delta, const float* d_out, float* dq, float* dk, float* dv) {
    const int threads = static_cast<int>(shape->threads);
    bool fine = true;
    const bool had_room = guarded([&] {
        const int64_t key_heads = shape->heads / shape->group, keys = padded(shape->keys), queries = padded(shape->queries);
        {
            Buffer packed_k(key_heads * keys * shape->dim), packed_v(key_heads * keys * shape->value);
            pack_all(k, key_heads, shape->keys, shape->dim, threads, packed_k.at);
            pack_all(v, key_heads, shape->keys, shape->value, threads, packed_v.at);
            const BackwardQueries work{*shape, *runs, q, k, d_out, packed_k.at, packed_v.at, lse, delta, dq};
#pragma omp parallel for collapse(2) schedule(dynamic, 1) num_threads(threads) reduction(&& : fine)
            for (int64_t head = 0; head < shape->heads; ++head)
                for (int64_t block = 0; block < runs->blocks; ++block) fine = guarded([&] { work(head, block); }) && fine;
        }
        Buffer packed_q(shape->heads * queries * shape->dim), packed_d(shape->heads * queries * shape->value);
        Buffer shift(shape->heads * queries), less(shape->heads * queries);
        pack_all(q, shape->heads, shape->queries, shape->dim, threads, packed_q.at);
        pack_all(d_out, shape->heads, shape->queries, shape->value, threads, packed_d.at);
        for (int64_t head = 0; head < shape->heads; ++head)
            for (int64_t i = 0; i < queries; ++i) {
                const bool is_query = i < shape->queries;
                shift.at[head * queries + i] = is_query ? lse[head * shape->queries + i] * LOG2E : 0.0f;
                less.at[head * queries + i] = is_query ? delta[head * shape->queries + i] : 0.0f;
            }
        const BackwardKeys work{*shape, *swapped, q, k, v, d_out, packed_q.at, packed_d.at, shift.at, less.at, dk, dv};
        for (int64_t member = 0; member < shape->group; ++member) {  // heads of a group add to the same keys: one member at a time
#pragma omp parallel for collapse(2) schedule(dynamic, 1) num_threads(threads) reduction(&& : fine)
            for (int64_t each = 0; each < key_heads; ++each)
                for (int64_t block = 0; block < swapped->blocks; ++block)
                    fine = guarded([&] { work(each * shape->group + member, block); }) && fine;
        }
    });
    return had_room && fine ? 0 : 1;
}

}  // extern "C"
