package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

func TestTheLeaderIsDefragmentedLast(t *testing.T) {
	status := &hubv1.StatusResponse{Leader: "hub-b", Members: []*hubv1.MemberStatus{{Name: "hub-a"}, {Name: "hub-b"}, {Name: "hub-c"}}}
	if diff := cmp.Diff([]string{"hub-a", "hub-c", "hub-b"}, inOrder(status)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	status.Leader = ""
	if diff := cmp.Diff([]string{"hub-a", "hub-b", "hub-c"}, inOrder(status)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
