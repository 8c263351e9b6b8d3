package session

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

const (
	// resultsKept is how many results are remembered, for directives that come
	// again because their answer was lost.
	resultsKept = 256
	jobBacklog  = 64
	// defaultDirectiveTime bounds a directive that names no deadline.
	defaultDirectiveTime = time.Minute
)

// desk does each directive once, however many members bring it.
type desk struct {
	carry func(context.Context, *agentv1.Directive) *agentv1.DirectiveResult

	mu      sync.Mutex
	working map[string]bool
	results map[string]*agentv1.DirectiveResult
	order   []string
	// jobs go from the session that brought a directive to run: the work
	// outlives the session.
	jobs chan job
}

type job struct {
	directive *agentv1.Directive
	report    func(*agentv1.DirectiveResult)
}

func newDesk(carry func(context.Context, *agentv1.Directive) *agentv1.DirectiveResult) *desk {
	return &desk{carry: carry, working: map[string]bool{}, results: map[string]*agentv1.DirectiveResult{}, jobs: make(chan job, jobBacklog)}
}

// run works until ctx ends and returns when all work has ended.
func (d *desk) run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case j := <-d.jobs:
			workers.Go(func() { j.report(d.work(ctx, j.directive)) })
		}
	}
}

// take starts the work and reports its result when it is done; at once when it
// was done before; and leaves it to the first call while it is under way, whose
// report must reach every member. A result that says FAILED is not kept: the
// same directive may be tried again.
func (d *desk) take(directive *agentv1.Directive, report func(*agentv1.DirectiveResult)) {
	id := directive.GetId()
	d.mu.Lock()
	defer d.mu.Unlock()
	if done := d.results[id]; done != nil {
		report(done)
		return
	}
	if d.working[id] {
		return
	}
	select {
	case d.jobs <- job{directive, report}:
		d.working[id] = true
	default:
		report(&agentv1.DirectiveResult{Id: id, Outcome: agentv1.Outcome_OUTCOME_FAILED,
			Message: "the agent has too many directives waiting: try again"})
	}
}

func (d *desk) work(ctx context.Context, directive *agentv1.Directive) *agentv1.DirectiveResult {
	limit := time.Duration(directive.GetDeadlineMillis()) * time.Millisecond
	if limit <= 0 {
		limit = defaultDirectiveTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	started := time.Now()
	result := d.carry(ctx, directive)
	if result.GetId() != directive.GetId() || result.GetElapsedMillis() == 0 {
		result = proto.CloneOf(result) // the carrier may keep it
		result.Id, result.ElapsedMillis = directive.GetId(), time.Since(started).Milliseconds()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.working, directive.GetId())
	if result.GetOutcome() != agentv1.Outcome_OUTCOME_FAILED {
		d.results[directive.GetId()] = result
		d.order = append(d.order, directive.GetId())
		if len(d.order) > resultsKept {
			delete(d.results, d.order[0])
			d.order = d.order[1:]
		}
	}
	return result
}
