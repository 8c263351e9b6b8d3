package apiserver

import (
	"context"
	"errors"
	"testing"
)

func TestUpstreamsFatalErrorsEndServersAndNotTheProcess(t *testing.T) {
	fatal := func(s *servers) {
		ended := make(chan struct{})
		go func() { defer close(ended); s.exit(255) }()
		<-ended
	}
	s := &servers{cancel: map[context.Context]context.CancelCauseFunc{}}
	outer, stop := context.WithCancel(context.Background())
	one, leaveOne := s.enter(outer)
	two, leaveTwo := s.enter(context.Background())
	defer leaveTwo()
	stop()
	fatal(s)
	if two.Err() != nil {
		t.Error("a hook that the end of one server interrupted ended another")
	}
	leaveOne()
	fatal(s)
	if !errors.Is(context.Cause(two), errUpstreamGaveUp) || errors.Is(context.Cause(one), errUpstreamGaveUp) {
		t.Errorf("causes %v and %v, want the running server to have given up", context.Cause(one), context.Cause(two))
	}
}
