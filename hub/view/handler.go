package view

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	internalscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	internalvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/utils/clock"

	"tripod.dev/tripod/syncer"
)

// AgesHeader carries the age of each cluster's part of an answer, for instance
// "north-1=0s, south-1=42s, south-2=unknown".
const AgesHeader = "Tripod-Fleet-Ages"

// Annotations of a list, and of the bookmarks of a watch. Lists of the
// Kubernetes API have none, but every client skips or keeps fields of a list's
// metadata that it does not know.
const (
	AgesAnnotation       = "tripod.dev/ages"
	IncompleteAnnotation = "tripod.dev/incomplete"
)

// HandlerConfig of a Handler. Zero values have the defaults said here.
type HandlerConfig struct {
	View *View
	// Authorizer is the hub's. A person sees the clusters that they may get.
	Authorizer authorizer.Authorizer
	// Printer prints built-in kinds; without one they have NAME and AGE.
	Printer Printer
	// RecheckEvery is how long an open watch may outlive its right; 5 s.
	RecheckEvery time.Duration
	// BookmarkEvery is the time between a watch's bookmarks; 30 s.
	BookmarkEvery time.Duration
	Clock         clock.WithTicker
}

// Handler serves a View as a read-only Kubernetes API. It wants the inner
// request's RequestInfo and the user in the context, and the URL without the
// /fleet prefix; the inner request was authorized before.
type Handler struct {
	config HandlerConfig
}

// NewHandler makes a Handler.
func NewHandler(config HandlerConfig) (*Handler, error) {
	if config.View == nil || config.Authorizer == nil {
		return nil, errors.New("view handler: View and Authorizer are needed")
	}
	if config.RecheckEvery == 0 {
		config.RecheckEvery = 5 * time.Second
	}
	if config.BookmarkEvery == 0 {
		config.BookmarkEvery = 30 * time.Second
	}
	if config.Clock == nil {
		config.Clock = clock.RealClock{}
	}
	return &Handler{config: config}, nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info, ok := request.RequestInfoFrom(r.Context())
	if !ok {
		refuse(w, apierrors.NewInternalError(errors.New("the request was not resolved")))
		return
	}
	if !info.IsResourceRequest {
		h.serveDiscovery(w, r)
		return
	}
	if err := h.serveResource(w, r, info); err != nil {
		refuse(w, err)
	}
}

// query is a read of one resource by one person.
type query struct {
	info       *request.RequestInfo
	collection *collection
	resource   syncer.Resource
	audience   *audience
	form       form
	options    metainternalversion.ListOptions
	// cluster restricts the answer, from ?cluster=NAME.
	cluster string
	include metav1.IncludeObjectPolicy
}

func (h *Handler) serveResource(w http.ResponseWriter, r *http.Request, info *request.RequestInfo) error {
	if err := readOnly(info); err != nil {
		return err
	}
	q, err := h.parse(r, info)
	if err != nil {
		return err
	}
	h.explain(w.Header(), q)
	switch info.Verb {
	case "get":
		return h.get(w, r, q)
	case "list":
		return h.list(w, r, q)
	default:
		return h.watch(w, r, q)
	}
}

func readOnly(info *request.RequestInfo) error {
	name := schema.GroupResource{Group: info.APIGroup, Resource: info.Resource}
	const remedy = "address the cluster itself under /clusters/NAME"
	if !slices.Contains([]string{"get", "list", "watch"}, info.Verb) {
		return notAllowed(name, fmt.Sprintf("the fleet's view is read-only, so %s is not served here: %s", info.Verb, remedy))
	}
	if info.Subresource != "" {
		return notAllowed(name, fmt.Sprintf("the fleet's view holds no subresources such as %s/%s: %s", info.Resource, info.Subresource, remedy))
	}
	return nil
}

func notAllowed(name schema.GroupResource, message string) error {
	err := apierrors.NewMethodNotSupported(name, "")
	err.ErrStatus.Message = message
	return err
}

func (h *Handler) parse(r *http.Request, info *request.RequestInfo) (*query, error) {
	gvr := schema.GroupVersionResource{Group: info.APIGroup, Version: info.APIVersion, Resource: info.Resource}
	collection, ok := h.config.View.find(gvr)
	if !ok {
		err := apierrors.NewGenericServerResponse(http.StatusNotFound, info.Verb, gvr.GroupResource(), info.Name, "", 0, true)
		err.ErrStatus.Message = fmt.Sprintf("no cluster shows %s in the fleet's view", gvr.GroupResource())
		return nil, err
	}
	q := &query{info: info, collection: collection, resource: collection.snapshotResource(), cluster: r.URL.Query().Get("cluster")}
	if !q.resource.Namespaced && info.Resource != "namespaces" && info.Namespace != "" {
		return nil, apierrors.NewGenericServerResponse(http.StatusNotFound, info.Verb, gvr.GroupResource(), info.Name, "", 0, true)
	}
	if q.form, ok = negotiate(r.Header.Get("Accept")); !ok {
		return nil, apierrors.NewGenericServerResponse(http.StatusNotAcceptable, info.Verb, gvr.GroupResource(), info.Name,
			"the fleet's view answers application/json, also as=Table and as=PartialObjectMetadata", 0, true)
	}
	if err := q.parseOptions(r); err != nil {
		return nil, err
	}
	q.audience = h.audienceOf(r.Context())
	q.audience.refresh(h.config.View.clusterNames())
	return q, nil
}

func (q *query) parseOptions(r *http.Request) error {
	values := r.URL.Query()
	if q.form == formTable {
		switch policy := metav1.IncludeObjectPolicy(values.Get("includeObject")); policy {
		case "", metav1.IncludeMetadata:
			q.include = metav1.IncludeMetadata
		case metav1.IncludeNone, metav1.IncludeObject:
			q.include = policy
		default:
			return apierrors.NewBadRequest(fmt.Sprintf("includeObject=%q is not one of None, Metadata, Object", policy))
		}
	}
	if q.info.Verb == "get" {
		return nil
	}
	if err := internalscheme.ParameterCodec.DecodeParameters(values, metav1.SchemeGroupVersion, &q.options); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if errs := internalvalidation.ValidateListOptions(&q.options, true); len(errs) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "ListOptions"}, "", errs)
	}
	if q.options.FieldSelector != nil {
		if err := checkFields(q.resource, q.options.FieldSelector); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	return nil
}

// namespace that the query is restricted to; empty is all.
func (q *query) namespace() string {
	if !q.resource.Namespaced {
		return ""
	}
	return q.info.Namespace
}

// matches reports whether an object of a visible cluster is asked for.
func (q *query) matches(o *object) bool {
	switch {
	case q.cluster != "" && o.cluster != q.cluster:
	case q.namespace() != "" && o.key.Namespace != q.namespace():
	case q.options.LabelSelector != nil && !q.options.LabelSelector.Matches(objectLabels{o}):
	case q.options.FieldSelector != nil && !q.options.FieldSelector.Matches(objectFields{o}):
	default:
		return q.audience.sees(o.cluster)
	}
	return false
}

// only is the one cluster that is asked for, if one is.
func (q *query) only() (cluster string, exact bool) {
	if q.cluster != "" {
		return q.cluster, true
	}
	if selector := q.options.LabelSelector; selector != nil {
		if cluster, exact = selector.RequiresExactMatch(ClusterName); exact {
			return cluster, true
		}
	}
	if selector := q.options.FieldSelector; selector != nil {
		return selector.RequiresExactMatch("metadata.cluster")
	}
	return "", false
}

// concerns reports whether a cluster can be in the answer.
func (q *query) concerns(cluster string) bool {
	if only, exact := q.only(); exact && cluster != only {
		return false
	}
	return q.audience.sees(cluster)
}

// explain tells in headers how old each part is, and warns of what is missing.
func (h *Handler) explain(header http.Header, q *query) {
	notes := h.notes(q)
	header.Set(AgesHeader, notes.ages)
	const most = 8
	for i, reason := range notes.reasons {
		if i == most {
			reason = fmt.Sprintf("%d more clusters are not whole or not fresh: see the header %s", len(notes.reasons)-most, AgesHeader)
		}
		if warning, err := utilnet.NewWarningHeader(299, "tripod", reason); err == nil {
			header.Add("Warning", warning)
		}
		if i == most {
			break
		}
	}
}

// notes are what an answer says about its own freshness.
type notes struct {
	ages    string
	reasons []string
}

func (h *Handler) notes(q *query) notes {
	var n notes
	var ages []string
	for _, f := range h.config.View.Freshness(q.resource.GroupVersionResource) {
		if !q.concerns(f.Cluster) {
			continue
		}
		age := short(f.Age)
		if !f.Whole {
			age = "unknown"
		}
		ages = append(ages, f.Cluster+"="+age)
		if f.Reason != "" {
			n.reasons = append(n.reasons, fmt.Sprintf("cluster %s: %s", f.Cluster, f.Reason))
		}
	}
	n.ages = strings.Join(ages, ", ")
	return n
}

func (n notes) annotations() map[string]string {
	annotations := map[string]string{AgesAnnotation: n.ages}
	if len(n.reasons) > 0 {
		annotations[IncompleteAnnotation] = strings.Join(n.reasons, "; ")
	}
	return annotations
}

// refuse answers with a Status.
func refuse(w http.ResponseWriter, err error) {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		known = apierrors.NewInternalError(err)
	}
	status := known.Status()
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	writeJSON(w, int(status.Code), "application/json", status)
}

func writeJSON(w http.ResponseWriter, code int, contentType string, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(code)
	_, _ = w.Write(body) // the client is gone if this fails
}
