// Package delta has heartbeats and grants say only what is new.
//
// A cluster with a thousand datasets would else repeat a thousand observations to each
// hub member every tick, and be told a thousand roles by each, nearly all of them as
// before. Both ends must stay alike, and hub and agent meet only in proto.
package delta

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	agentv1 "tripod.dev/tripod/proto/agent/v1"
)

// mostObservations is how many a heartbeat may name: a difference is far smaller than
// what it stands for.
const mostObservations = 1 << 17

// slight is a delay that is no matter for the age of an observation.
const slight = 10 * time.Millisecond

// Speaker makes the heartbeats of one stream from whole ones. Its zero value has said
// nothing yet. An observation that has not changed must be the same message as before.
type Speaker struct {
	said []*agentv1.DatasetObservation
}

// Next returns what goes out next in place of a whole heartbeat, whose observations are
// kept and must not be changed.
func (s *Speaker) Next(whole *agentv1.Heartbeat) *agentv1.Heartbeat {
	all := whole.GetDatasets()
	before := s.said
	s.said = all
	if len(all) == 0 {
		return whole
	}
	var places map[*agentv1.DatasetObservation]int // of before; made when the order has changed
	same := make([]uint32, len(all))
	var news []*agentv1.DatasetObservation
	for i, o := range all {
		if i < len(before) && before[i] == o {
			same[i] = uint32(i + 1)
			continue
		}
		if places == nil {
			places = make(map[*agentv1.DatasetObservation]int, len(before))
			for n, b := range before {
				places[b] = n + 1
			}
		}
		if same[i] = uint32(places[o]); same[i] == 0 {
			news = append(news, o)
		}
	}
	next := without(whole, "datasets")
	next.Datasets, next.Same = news, same
	return next
}

// Listener makes whole heartbeats from those of one stream. Its zero value has heard
// nothing yet.
type Listener struct {
	heard []*agentv1.DatasetObservation
}

// Whole returns the heartbeat that said stands for. Its observations may be those of
// earlier ones and must not be changed.
func (l *Listener) Whole(said *agentv1.Heartbeat) (*agentv1.Heartbeat, error) {
	same := said.GetSame()
	all := said.GetDatasets()
	switch {
	case len(same) > mostObservations:
		return nil, fmt.Errorf("the heartbeat names %d observations, more than %d", len(same), mostObservations)
	case len(same) > 0:
		all = make([]*agentv1.DatasetObservation, 0, len(same))
		news := said.GetDatasets()
		for _, n := range same {
			switch {
			case n > 0 && int(n) <= len(l.heard):
				all = append(all, l.heard[n-1])
			case n == 0 && len(news) > 0:
				all, news = append(all, news[0]), news[1:]
			default:
				return nil, fmt.Errorf("the heartbeat names observation %d of the one before, which had %d, and brings %d", n, len(l.heard), len(said.GetDatasets()))
			}
		}
		if len(news) > 0 {
			return nil, fmt.Errorf("the heartbeat brings %d observations that it does not name", len(news))
		}
	}
	if n := len(said.GetAgesMillis()); n > 0 && n != len(all) {
		return nil, fmt.Errorf("the heartbeat has %d ages for %d observations", n, len(all))
	}
	if len(same) > 0 && len(said.GetAgesMillis()) == 0 {
		return nil, errors.New("the heartbeat has no ages for the observations of the one before")
	}
	l.heard = all
	said.Datasets, said.Same = all, nil
	return said, nil
}

// Age is how old the i-th observation of a whole heartbeat was when that was sent.
func Age(whole *agentv1.Heartbeat, i int) time.Duration {
	if ages := whole.GetAgesMillis(); len(ages) > 0 {
		return time.Duration(ages[i]) * time.Millisecond
	}
	return time.Duration(whole.GetDatasets()[i].GetAgeMillis()) * time.Millisecond
}

// Plain returns a whole heartbeat as one who knows no ages_millis understands it, sent
// later by as much.
func Plain(whole *agentv1.Heartbeat, later time.Duration) *agentv1.Heartbeat {
	if len(whole.GetDatasets()) == 0 || len(whole.GetAgesMillis()) == 0 && later < slight {
		return whole
	}
	plain := without(whole, "datasets", "ages_millis")
	for i, o := range whole.GetDatasets() {
		o = proto.CloneOf(o)
		o.AgeMillis = (Age(whole, i) + later).Milliseconds()
		plain.Datasets = append(plain.Datasets, o)
	}
	return plain
}

// Unobserved returns a heartbeat without what was observed.
func Unobserved(whole *agentv1.Heartbeat) *agentv1.Heartbeat {
	if len(whole.GetDatasets()) == 0 {
		return whole
	}
	return without(whole, "datasets", "ages_millis")
}

// without is a copy that shares everything but some fields, which it lacks.
func without(whole *agentv1.Heartbeat, fields ...protoreflect.Name) *agentv1.Heartbeat {
	other := &agentv1.Heartbeat{}
	to := other.ProtoReflect()
	whole.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if !slices.Contains(fields, field.Name()) {
			to.Set(field, value)
		}
		return true
	})
	return other
}
