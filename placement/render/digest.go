package render

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"tripod.dev/tripod/hub/api/v1alpha1"
	"tripod.dev/tripod/placement"
)

// Digest covers all that Render reads: two hub members that see the same digest
// render the same objects. The order of the lists does not matter.
func Digest(overrides []v1alpha1.Override, shares []v1alpha1.PlacementDecision, templates []*unstructured.Unstructured) (string, error) {
	shares = slices.Clone(shares)
	slices.SortFunc(shares, func(a, b v1alpha1.PlacementDecision) int { return cmp.Compare(a.Cluster, b.Cluster) })
	stripped := make([]*unstructured.Unstructured, 0, len(templates))
	for _, t := range templates {
		t = t.DeepCopy()
		strip(t)
		stripped = append(stripped, t)
	}
	slices.SortFunc(stripped, func(a, b *unstructured.Unstructured) int {
		return placement.CompareReferences(placement.ReferenceOf(a), placement.ReferenceOf(b))
	})
	raw, err := json.Marshal(struct {
		Overrides []v1alpha1.Override
		Shares    []v1alpha1.PlacementDecision
		Templates []*unstructured.Unstructured
	}{overrides, shares, stripped})
	if err != nil {
		return "", fmt.Errorf("encode what a decision is made of: %w", err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:16]), nil
}
