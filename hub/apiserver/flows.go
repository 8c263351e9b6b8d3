package apiserver

import (
	"context"
	"fmt"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	genericapiserver "k8s.io/apiserver/pkg/server"
	flowcontrolclient "k8s.io/client-go/kubernetes/typed/flowcontrol/v1"

	"tripod.dev/tripod/hub/api/v1alpha1"
)

// Priority levels and flow schemas that every hub has beside upstream's.
const (
	// FlowGateway is what people pass through the gateway: a level of its own, in which
	// each has a flow, so that nobody who floods it delays the hub's own API, nor others
	// by more than a turn.
	FlowGateway = "tripod-gateway"
	// FlowAgents is what agents ask of the API. It lends nothing, and people cannot
	// fill it; nor can one agent keep the others out.
	FlowAgents = "tripod-agents"
	// FlowMembers is what members of the hub ask of each other: never queued.
	FlowMembers = "tripod-members"
)

// groupMembers is the organisation in the members' certificates.
const groupMembers = "tripod:members"

// flowsUpdated is the annotation of what a new version may change. Whoever takes it
// away, or sets it to false, keeps their own. Upstream's annotation would have upstream
// delete what it does not know.
const flowsUpdated = "tripod.dev/autoupdate"

func priorityLevels() []*flowcontrolv1.PriorityLevelConfiguration {
	// Of the default of 600 seats, and beside upstream's 245 shares, the gateway has 280,
	// of which 188 are always its own: more than are ever with clusters (hub/gateway).
	return []*flowcontrolv1.PriorityLevelConfiguration{level(FlowGateway, 250, 33), level(FlowAgents, 40, 0)}
}

func flowSchemas() []*flowcontrolv1.FlowSchema {
	gateway := flowcontrolv1.PolicyRulesWithSubjects{
		Subjects: []flowcontrolv1.Subject{group(user.AllAuthenticated)},
		ResourceRules: []flowcontrolv1.ResourcePolicyRule{{
			Verbs: []string{flowcontrolv1.VerbAll}, APIGroups: []string{v1alpha1.GroupVersion.Group},
			Resources:    []string{"clusters/proxy", "applications/proxy"},
			ClusterScope: true, Namespaces: []string{flowcontrolv1.NamespaceEvery},
		}},
	}
	everything := func(of string) flowcontrolv1.PolicyRulesWithSubjects {
		return flowcontrolv1.PolicyRulesWithSubjects{
			Subjects: []flowcontrolv1.Subject{group(of)},
			ResourceRules: []flowcontrolv1.ResourcePolicyRule{{
				Verbs: []string{flowcontrolv1.VerbAll}, APIGroups: []string{flowcontrolv1.APIGroupAll}, Resources: []string{flowcontrolv1.ResourceAll},
				ClusterScope: true, Namespaces: []string{flowcontrolv1.NamespaceEvery},
			}},
			NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{flowcontrolv1.VerbAll}, NonResourceURLs: []string{flowcontrolv1.NonResourceAll}}},
		}
	}
	return []*flowcontrolv1.FlowSchema{
		flowSchema(FlowMembers, flowcontrolv1.PriorityLevelConfigurationNameExempt, 400, everything(groupMembers)),
		flowSchema(FlowAgents, FlowAgents, 500, everything(groupAgents)),
		flowSchema(FlowGateway, FlowGateway, 600, gateway),
	}
}

func group(name string) flowcontrolv1.Subject {
	return flowcontrolv1.Subject{Kind: flowcontrolv1.SubjectKindGroup, Group: &flowcontrolv1.GroupSubject{Name: name}}
}

func level(name string, shares, lendablePercent int32) *flowcontrolv1.PriorityLevelConfiguration {
	return &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: flowMeta(name), Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
		Type: flowcontrolv1.PriorityLevelEnablementLimited,
		Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
			NominalConcurrencyShares: &shares, LendablePercent: &lendablePercent,
			LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeQueue,
				Queuing: &flowcontrolv1.QueuingConfiguration{Queues: 64, HandSize: 6, QueueLengthLimit: 50}},
		},
	}}
}

// flowSchema gives each person a flow. The exempt level has none.
func flowSchema(name, level string, precedence int32, rules flowcontrolv1.PolicyRulesWithSubjects) *flowcontrolv1.FlowSchema {
	made := &flowcontrolv1.FlowSchema{ObjectMeta: flowMeta(name), Spec: flowcontrolv1.FlowSchemaSpec{
		PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: level},
		MatchingPrecedence:         precedence,
		Rules:                      []flowcontrolv1.PolicyRulesWithSubjects{rules},
	}}
	if level != flowcontrolv1.PriorityLevelConfigurationNameExempt {
		made.Spec.DistinguisherMethod = &flowcontrolv1.FlowDistinguisherMethod{Type: flowcontrolv1.FlowDistinguisherMethodByUserType}
	}
	return made
}

func flowMeta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Annotations: map[string]string{flowsUpdated: "true"}}
}

// ensureFlows makes what is missing and updates what was not made somebody's own.
func ensureFlows(hook genericapiserver.PostStartHookContext) error {
	client, err := flowcontrolclient.NewForConfig(hook.LoopbackClientConfig)
	if err != nil {
		return fmt.Errorf("make a client for flow control: %w", err)
	}
	for _, wanted := range priorityLevels() {
		got, err := client.PriorityLevelConfigurations().Get(hook, wanted.Name, metav1.GetOptions{})
		if err = ensureFlow(hook, client.PriorityLevelConfigurations(), wanted, got, err, func() bool {
			same := equality.Semantic.DeepEqual(got.Spec, wanted.Spec)
			got.Spec = wanted.Spec
			return same
		}); err != nil {
			return fmt.Errorf("priority level %s: %w", wanted.Name, err)
		}
	}
	for _, wanted := range flowSchemas() {
		got, err := client.FlowSchemas().Get(hook, wanted.Name, metav1.GetOptions{})
		if err = ensureFlow(hook, client.FlowSchemas(), wanted, got, err, func() bool {
			same := equality.Semantic.DeepEqual(got.Spec, wanted.Spec)
			got.Spec = wanted.Spec
			return same
		}); err != nil {
			return fmt.Errorf("flow schema %s: %w", wanted.Name, err)
		}
	}
	return nil
}

type flowClient[T metav1.Object] interface {
	Create(context.Context, T, metav1.CreateOptions) (T, error)
	Update(context.Context, T, metav1.UpdateOptions) (T, error)
}

// ensureFlow: got, or the error of getting it, is what is there; replaced puts the wanted
// spec into it and says whether it was the same.
func ensureFlow[T metav1.Object](ctx context.Context, client flowClient[T], wanted, got T, err error, replaced func() bool) error {
	switch {
	case apierrors.IsNotFound(err):
		_, err = client.Create(ctx, wanted, metav1.CreateOptions{FieldManager: "tripod-hub"})
		if apierrors.IsAlreadyExists(err) {
			return nil // another member was faster
		}
		return err
	case err != nil:
		return err
	case got.GetAnnotations()[flowsUpdated] != "true" || replaced():
		return nil
	}
	_, err = client.Update(ctx, got, metav1.UpdateOptions{FieldManager: "tripod-hub"})
	return err
}
