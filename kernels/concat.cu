// Tensors put one behind the other along a dimension.
//
// Operands: up to twelve x [outer, part, inner] with contiguous rows at any distances; out [outer, all parts, inner]
// contiguous, all of one dtype, of which only the size matters.
//
// Algorithm: each operand is a walk of two, x and its places in the result, whose words are as wide as both allow. One
// launch moves all: the grid has a row of blocks for each.
//
// Budget: at most 48 registers, no shared memory; 64 bytes of a thread are under way. Bound: memory, one read and one
// write.
#include "common/move.cuh"

constexpr u32 MOST = 12;

struct Moves {
    struct {
        const void *from;
        void *to;
    } at[MOST];
    struct {
        Walk<2> walk;
        u32 word;
    } how[MOST];
};

KERNEL(WALKERS) concat__sm80(const __grid_constant__ Moves moves) {
    const u32 i = blockIdx.y;
    move_words(moves.at[i].from, moves.at[i].to, moves.how[i].walk, moves.how[i].word, blockIdx.x);
}
