package effector

import (
	"sync"

	"google.golang.org/protobuf/proto"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// answersKept bounds the memory of directives that were answered for good.
const answersKept = 256

// answers remembers results by the directive's id.
type answers struct {
	mu    sync.Mutex
	by    map[string]*agentv1.DirectiveResult
	order []string
}

func newAnswers() *answers { return &answers{by: map[string]*agentv1.DirectiveResult{}} }

// to returns the answer to a directive, or nil.
func (a *answers) to(id string) *agentv1.DirectiveResult {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.by[id]; r != nil {
		return proto.CloneOf(r)
	}
	return nil
}

// keep remembers a final answer; one that failed may be tried again.
func (a *answers) keep(r *agentv1.DirectiveResult) {
	if r.GetOutcome() == agentv1.Outcome_OUTCOME_FAILED || r.GetId() == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.by[r.GetId()] == nil {
		a.order = append(a.order, r.GetId())
	}
	a.by[r.GetId()] = proto.CloneOf(r)
	if len(a.order) > answersKept {
		delete(a.by, a.order[0])
		a.order = a.order[1:]
	}
}
