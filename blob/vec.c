/* Growing arrays. */
#include "blob/internal.h"

int array_grow(void *array_ptr, uint64_t *cap, uint64_t need, size_t elem_size)
{
	void **array = array_ptr;
	uint64_t now = *cap ? *cap : 16;
	char *grown;

	if (need <= *cap)
		return 0;
	while (now < need)
		now *= 2;
	grown = realloc(*array, now * elem_size);
	if (!grown)
		return -ENOMEM;
	memset(grown + *cap * elem_size, 0, (now - *cap) * elem_size);
	*array = grown;
	*cap = now;
	return 0;
}

int vec_reserve(struct u64_vec *vec, size_t nr)
{
	uint64_t cap = vec->cap;
	int rc = array_grow(&vec->v, &cap, nr, sizeof(vec->v[0]));

	vec->cap = cap;
	return rc;
}

int vec_push(struct u64_vec *vec, uint64_t value)
{
	int rc = vec_reserve(vec, vec->nr + 1);

	if (!rc)
		vec->v[vec->nr++] = value;
	return rc;
}

void vec_free(struct u64_vec *vec)
{
	free(vec->v);
	*vec = (struct u64_vec){ 0 };
}
