package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// retryAfter is what the Status tells clients to wait for a cluster that is not
// connected: about one tick of the sessions. There is no Retry-After header:
// client-go would silently try ten times, and kubectl's discovery five times
// that, before a person reads why.
const retryAfter = 2

func badPath(err error) metav1.Status {
	code, reason := http.StatusBadRequest, metav1.StatusReasonBadRequest
	if errors.Is(err, errNoName) {
		code, reason = http.StatusNotFound, metav1.StatusReasonNotFound
	}
	return metav1.Status{Code: int32(code), Reason: reason, Message: err.Error()}
}

func unspeakable(name string) metav1.Status {
	return metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden,
		Message: fmt.Sprintf("the identity %q, its groups or extras cannot be passed on to a cluster unchanged: they are empty or hold control characters or space at an end", name)}
}

func revoked() metav1.Status {
	return metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: errRevoked.Error()}
}

func badMethod(method string) metav1.Status {
	return metav1.Status{Code: http.StatusMethodNotAllowed, Reason: metav1.StatusReasonMethodNotAllowed,
		Message: fmt.Sprintf("the gateway does not pass %s on to clusters", method)}
}

func unknownCluster(name string) metav1.Status {
	return metav1.Status{
		Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: fmt.Sprintf("there is no cluster %q in this fleet: see `tripodctl clusters`", name),
		Details: &metav1.StatusDetails{Name: name, Group: "tripod.dev", Kind: "clusters"},
	}
}

// away is the answer for a cluster that cannot be reached now.
func away(name, why string) metav1.Status {
	return metav1.Status{
		Code: http.StatusServiceUnavailable, Reason: metav1.StatusReasonServiceUnavailable,
		Message: fmt.Sprintf("cluster %q cannot be reached from this hub member: %s", name, why),
		Details: &metav1.StatusDetails{Name: name, Group: "tripod.dev", Kind: "clusters", RetryAfterSeconds: retryAfter},
	}
}

func badGateway(name, why string) metav1.Status {
	return metav1.Status{
		Code: http.StatusBadGateway, Reason: metav1.StatusReasonInternalError,
		Message: fmt.Sprintf("cluster %q gave no usable answer: %s", name, why),
		Details: &metav1.StatusDetails{Name: name, Group: "tripod.dev", Kind: "clusters"},
	}
}

// late is the answer when a request's time is over.
func late(name string) metav1.Status {
	return metav1.Status{
		Code: http.StatusGatewayTimeout, Reason: metav1.StatusReasonTimeout,
		Message: fmt.Sprintf("cluster %q did not answer in the time of this request, which is a minute, or what ?timeout= says if that is less", name),
		Details: &metav1.StatusDetails{Name: name, Group: "tripod.dev", Kind: "clusters"},
	}
}

// refuse answers with a Status.
func refuse(w http.ResponseWriter, status metav1.Status) {
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	status.Status = metav1.StatusFailure
	body, err := json.Marshal(status)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	// kubectl's discovery drops the message of an error, but shows a warning.
	if warning, err := utilnet.NewWarningHeader(299, "tripod", status.Message); err == nil && status.Code >= http.StatusInternalServerError {
		w.Header().Add("Warning", warning)
	}
	w.WriteHeader(int(status.Code))
	_, _ = w.Write(body) // the client is gone if this fails
}
