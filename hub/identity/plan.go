package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
)

// Stage of a rotation of the CA. Each is durable and in force on every member before
// the next begins.
type Stage int

// Stages, in order.
const (
	// StageSettled: there is one CA.
	StageSettled Stage = iota
	// StageTrust: both are trusted, everything is issued by the present one.
	StageTrust
	// StageIssue: what is asked for is issued by the next one; members still show
	// certificates of the present one, so that who knows only that one goes on.
	StageIssue
	// StageServe: members show certificates of the next one. Both are trusted.
	StageServe
)

func (s Stage) String() string {
	if s < StageSettled || s > StageServe {
		return fmt.Sprintf("stage %d", int(s))
	}
	return [...]string{"settled", "trust", "issue", "serve"}[s]
}

// Plan is which CAs the hub trusts and which of them does what. The hub commits it;
// members follow. It is immutable.
type Plan struct {
	// Generation grows by one with each change.
	Generation uint64
	Stage      Stage
	Present    *x509.Certificate
	// Next is nil in StageSettled.
	Next *x509.Certificate
}

// Validate says what is wrong with a plan that came from outside.
func (p Plan) Validate() error {
	switch {
	case p.Present == nil:
		return errors.New("identity: the plan of the CAs has no present CA")
	case p.Stage < StageSettled || p.Stage > StageServe:
		return fmt.Errorf("identity: the plan of the CAs is in %s, which this program does not know: install the one that the other members run", p.Stage)
	case (p.Stage == StageSettled) != (p.Next == nil):
		return fmt.Errorf("identity: the plan of the CAs is in stage %s, and has a next CA: %t", p.Stage, p.Next != nil)
	}
	return nil
}

// Begin is the plan with which a rotation to next begins. In StageTrust nothing has
// been issued by the one that was next so far, and it may be replaced.
func (p Plan) Begin(next *x509.Certificate) (Plan, error) {
	if p.Stage > StageTrust {
		return Plan{}, fmt.Errorf("identity: a rotation is in stage %s: finish it first", p.Stage)
	}
	return Plan{Generation: p.Generation + 1, Stage: StageTrust, Present: p.Present, Next: next}, nil
}

// Advance is the plan of the stage after this one. A settled one has none.
func (p Plan) Advance() Plan {
	switch p.Stage {
	case StageTrust, StageIssue:
		return Plan{Generation: p.Generation + 1, Stage: p.Stage + 1, Present: p.Present, Next: p.Next}
	case StageServe:
		return Plan{Generation: p.Generation + 1, Stage: StageSettled, Present: p.Next}
	default:
		return p
	}
}

// issuing is the CA that signs what is asked for.
func (p Plan) issuing() *x509.Certificate {
	if p.Stage >= StageIssue {
		return p.Next
	}
	return p.Present
}

// showing is the CA of the certificates that members show.
func (p Plan) showing() *x509.Certificate {
	if p.Stage == StageServe {
		return p.Next
	}
	return p.Present
}

// trusted are all of them, the one that members show first.
func (p Plan) trusted() []*x509.Certificate {
	list := []*x509.Certificate{p.showing()}
	for _, other := range []*x509.Certificate{p.Present, p.Next} {
		if other != nil && !other.Equal(list[0]) {
			list = append(list, other)
		}
	}
	return list
}
