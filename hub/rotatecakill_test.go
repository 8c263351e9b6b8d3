package hub

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// A leader that loses its power in the middle of a stage leaves a rotation that whoever
// leads next goes on with: no member is shut out, and in the end all trust one CA.
func TestALeaderThatDiesInARotationLeavesItToTheNext(t *testing.T) {
	if testing.Short() {
		t.Skip("three members start")
	}
	f := startFleet(t)
	for _, p := range f.members {
		f.api(p)
	}
	present := f.trusts(f.members[0])
	for _, into := range []time.Duration{0, 40 * time.Millisecond, 200 * time.Millisecond} {
		f.dieIn(into, "issue", &hubv1.RotateAuthorityRequest{Begin: true})
		for _, p := range f.members {
			f.writer(p).write(t, "while the new CA issues, at "+p.name)
		}
		f.dieIn(into, "settled", &hubv1.RotateAuthorityRequest{Finish: true, Without: []string{"tripod:admin"}})
		next := f.trusts(f.members[0])
		if len(next) != 1 || slices.Equal(next, present) {
			t.Fatalf("after a rotation in which leaders died %v into it the fleet trusts %q, before it %q", into, next, present)
		}
		for _, p := range f.members {
			if got := f.trusts(p); !slices.Equal(got, next) {
				t.Errorf("%s trusts %q, %s trusts %q", p.name, got, f.members[0].name, next)
			}
			f.writer(p).write(t, "after the rotation, at "+p.name)
		}
		present = next
	}
}

// dieIn asks for a stage of a rotation, kills the leader so far into that, and asks again
// until the stage is reached.
func (f *fleet) dieIn(into time.Duration, stage string, request *hubv1.RotateAuthorityRequest) {
	f.t.Helper()
	leader := f.leader(f.members[0])
	asked := f.members[slices.IndexFunc(f.members, func(p *process) bool { return p != leader })]
	killed := make(chan struct{})
	time.AfterFunc(into, func() {
		leader.Kill()
		close(killed)
	})
	_ = f.order(asked, func(ctx context.Context, admin hubv1.AdminClient) error { // whatever comes of it
		_, err := admin.RotateAuthority(ctx, request)
		return err
	})
	<-killed
	f.start(leader)
	f.api(leader)
	f.eventually("the rotation reaches "+stage, func(context.Context) error {
		if answer := f.rotateCA(asked, request); answer.GetStage() != stage {
			return fmt.Errorf("it is in stage %q and waits for %q", answer.GetStage(), answer.GetWaits())
		}
		return nil
	})
}
