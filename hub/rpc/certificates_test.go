package rpc

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

func TestTheLastWordOnACertificateCounts(t *testing.T) {
	cert := func(member, name string, ends, shown int64) *hubv1.Certificate {
		return &hubv1.Certificate{Member: member, Name: name, NotAfter: ends, Shown: shown}
	}
	var got []string
	for _, c := range newest([]*hubv1.Certificate{
		cert("a", "ca", 90, 0), cert("b", "ca", 90, 0), // every member has its copy
		cert("a", "member:a", 50, 0), cert("b", "member:a", 40, 7), // b has seen an older one
		cert("a", "agent:x", 30, 5), cert("b", "agent:x", 60, 6), cert("c", "agent:x", 30, 4),
	}) {
		got = append(got, c.GetMember()+" "+c.GetName())
	}
	if diff := cmp.Diff([]string{"a member:a", "b agent:x", "a ca", "b ca"}, got); diff != "" {
		t.Errorf("certificates (-want +got):\n%s", diff)
	}
}
