package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tripod.dev/tripod/failover/evidence"
	"tripod.dev/tripod/hub/api/v1alpha1"
)

// An auditor must see the difference between a good chain, an edited record, a
// chain that was cut short, and a head that another key signed.
func TestReadEvidence(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain := func() []evidence.Record {
		var c []evidence.Record
		for _, text := range []string{"lost", "fenced", "promoted"} {
			c = evidence.Append(c, "run-1", evidence.Record{Kind: "Observation", Subject: "north-1", Text: text, By: "hub-a"})
		}
		return c
	}
	tests := map[string]struct {
		edit func([]evidence.Record) []evidence.Record
		// journal is how many records of the end are in the run's journal, and archive how
		// many of the beginning are in the ConfigMap: all of them if it is 0.
		journal, archive int
		owner            string
		key              ed25519.PrivateKey
		want             string // part of the problem; empty means verified
	}{
		"a chain as it was written is verified": {},
		"an edited record is named": {
			edit: func(c []evidence.Record) []evidence.Record { c[1].Text = "not fenced"; return c },
			want: "record 2",
		},
		"a chain that was cut short is noticed": {
			edit: func(c []evidence.Record) []evidence.Record { return c[:2] },
			want: "record 3",
		},
		"what is not archived yet is in the journal": {journal: 2, archive: 1},
		"nothing is archived yet":                    {journal: 3, archive: -1},
		"what was just archived is in both":          {journal: 2, archive: 3},
		"an edited record that is in both is named": {
			edit:    func(c []evidence.Record) []evidence.Record { c[1].Text = "not fenced"; return c },
			journal: 2, want: "record 2",
		},
		"a record that is in neither is missed":         {journal: 1, archive: 1, want: "record 2"},
		"an older run with this name was archived":      {journal: 3, archive: 1, owner: "another"},
		"only an older run with this name was archived": {archive: 3, owner: "another", want: "record 1"},
		"a head that a stranger signed is noticed":      {key: stranger, want: "another hub signed it"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			key := private
			if test.key != nil {
				key = test.key
			}
			original := chain()
			head := evidence.Head(original, "run-1")
			signature, err := evidence.Sign(key, "run-1", head)
			if err != nil {
				t.Fatal(err)
			}
			stored := chain()
			if test.edit != nil {
				stored = test.edit(stored)
			}
			if test.archive != 0 {
				stored = stored[:max(0, test.archive)]
			}
			text, err1 := evidence.Encode(stored)
			recent, err2 := evidence.Encode(original[len(original)-test.journal:])
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			der, err := x509.MarshalPKIXPublicKey(public)
			if err != nil {
				t.Fatal(err)
			}
			run := &v1alpha1.RecoveryRun{ObjectMeta: metav1.ObjectMeta{Name: "run-1", UID: "this"}}
			run.Status.Evidence = v1alpha1.EvidenceHead{Head: head, Signature: signature, Recent: string(recent)}
			api := newFakeHub(t, run,
				&corev1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{Namespace: evidence.Namespace, Name: evidence.ConfigMap("run-1", 1), Annotations: map[string]string{evidence.RunUID: test.owner}},
					Data:       map[string]string{evidence.ConfigMapKey: string(text)},
				},
				&corev1.ConfigMap{
					ObjectMeta: metav1.ObjectMeta{Namespace: evidence.Namespace, Name: evidence.KeyConfigMap},
					Data:       map[string]string{evidence.KeyConfigMapKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))},
				})
			got, err := readEvidence(t.Context(), api, run)
			if err != nil {
				t.Fatal(err)
			}
			if got.Verified != (test.want == "") || !strings.Contains(got.Problem, test.want) {
				t.Errorf("verified %t with the problem %q, want the problem %q", got.Verified, got.Problem, test.want)
			}
		})
	}
}
