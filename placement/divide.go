package placement

import (
	"cmp"
	"math"
	"slices"
)

// division shares the replicas of one template out over the chosen clusters.
//
// It adds replicas one at a time by Webster's method (the highest of
// weight/(2·share+1)), which keeps to the weights within rounding, and under
// which a growing total, or a cluster that goes, never takes a replica from a
// cluster that stays. See M. Balinski and H. Young, Fair Representation, 1982.
type division struct {
	clusters []Cluster // sorted by name
	weights  []int64
	// start is what each cluster has before the first step, limit the most it
	// may have.
	start, limit []int64
	previous     []int64
	declared     int64
	survive      int
	bounds       []bound

	shares []int64
}

// run fills shares. It returns false if the declared replicas do not fit.
func (d *division) run() bool {
	d.shares = slices.Clone(d.start)
	for !d.enough() {
		if !d.grow() {
			return false
		}
	}
	for d.shrink() {
	}
	return true
}

// enough tells whether the declared replicas run, also after the loss of the
// centers with most of them, in as many domains as asked for.
func (d *division) enough() bool {
	total := int64(0)
	centers := map[string]int64{}
	for i, s := range d.shares {
		total += s
		centers[centerOf(d.clusters[i])] += s
	}
	if total-largest(centers, d.survive) < d.declared {
		return false
	}
	return d.unmet() == nil
}

// unmet is a bound with fewer domains in use than it asks for. A template
// with fewer replicas than that uses as many domains as it has replicas.
func (d *division) unmet() *bound {
	for i := range d.bounds {
		used := d.domains(d.bounds[i])
		if int64(len(used)) < min(int64(d.bounds[i].min), d.declared) {
			return &d.bounds[i]
		}
	}
	return nil
}

func (d *division) domains(b bound) map[string]bool {
	used := map[string]bool{}
	for i, s := range d.shares {
		if s > 0 {
			used[b.domain(d.clusters[i])] = true
		}
	}
	return used
}

// grow adds one replica where it is due.
func (d *division) grow() bool {
	empty := func(int) bool { return true }
	if b := d.unmet(); b != nil {
		used := d.domains(*b)
		empty = func(i int) bool { return !used[b.domain(d.clusters[i])] }
	}
	for level := d.level(); ; level++ {
		best, capped := -1, false
		for i := range d.clusters {
			if d.weights[i] == 0 || d.shares[i] >= d.limit[i] || !empty(i) {
				continue
			}
			if d.survive > 0 && d.centerSum(i) >= level {
				capped = true
				continue
			}
			if best < 0 || d.before(i, best) {
				best = i
			}
		}
		if best >= 0 {
			d.shares[best]++
			return true
		}
		if !capped {
			return false
		}
	}
}

// level is the size up to which every center is filled first when centers must
// be survivable: replicas beyond it only add to what a loss takes.
func (d *division) level() int64 {
	if d.survive == 0 {
		return math.MaxInt64
	}
	centers := map[string]bool{}
	for i, c := range d.clusters {
		if d.weights[i] > 0 || d.shares[i] > 0 {
			centers[centerOf(c)] = true
		}
	}
	spare := int64(len(centers) - d.survive)
	if spare <= 0 {
		return d.declared
	}
	return max(1, (d.declared+spare-1)/spare)
}

func (d *division) centerSum(i int) int64 {
	sum := int64(0)
	for j, c := range d.clusters {
		if centerOf(c) == centerOf(d.clusters[i]) {
			sum += d.shares[j]
		}
	}
	return sum
}

// before tells whether the next replica is due to a rather than to b. Ties go to
// the one that had it before, so that rounding never moves a replica.
func (d *division) before(a, b int) bool {
	qa := d.weights[a] * (2*(d.shares[b]-d.start[b]) + 1)
	qb := d.weights[b] * (2*(d.shares[a]-d.start[a]) + 1)
	if qa != qb {
		return qa > qb
	}
	hadA, hadB := d.previous[a] > d.shares[a], d.previous[b] > d.shares[b]
	if hadA != hadB {
		return hadA
	}
	return d.clusters[a].Name < d.clusters[b].Name
}

// shrink takes one replica away if what remains is still enough: from what was
// just added before what ran already, and from the fullest for its weight.
func (d *division) shrink() bool {
	order := make([]int, 0, len(d.shares))
	for i := range d.shares {
		if d.shares[i] > 0 {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		fresh := func(i int) int {
			if d.shares[i] > d.previous[i] {
				return 0
			}
			return 1
		}
		return cmp.Or(
			cmp.Compare(fresh(a), fresh(b)),
			cmp.Compare(d.shares[b]*max(1, d.weights[a]), d.shares[a]*max(1, d.weights[b])),
			cmp.Compare(d.clusters[b].Name, d.clusters[a].Name),
		)
	})
	for _, i := range order {
		d.shares[i]--
		if d.enough() {
			return true
		}
		d.shares[i]++
	}
	return false
}

// largest sums the n largest values.
func largest(sums map[string]int64, n int) int64 {
	values := make([]int64, 0, len(sums))
	for _, v := range sums {
		values = append(values, v)
	}
	slices.SortFunc(values, func(a, b int64) int { return cmp.Compare(b, a) })
	total := int64(0)
	for _, v := range values[:min(n, len(values))] {
		total += v
	}
	return total
}

// fits is how many replicas of a template the free capacity holds. A template
// without requests is taken to need little of both.
func fits(free *Amount, request Amount) int64 {
	if free == nil {
		return 0
	}
	if request == (Amount{}) {
		request = Amount{MilliCPU: 10}
	}
	n := int64(math.MaxInt32)
	if request.MilliCPU > 0 {
		n = min(n, free.MilliCPU/request.MilliCPU)
	}
	if request.Bytes > 0 {
		n = min(n, free.Bytes/request.Bytes)
	}
	return n
}
