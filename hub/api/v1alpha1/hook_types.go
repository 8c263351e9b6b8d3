package v1alpha1

// HookPoint is when a hook runs: before a phase changes anything, or when the
// phase has done its work and the next one has not begun. Those of a plan and of a
// wave run once for the whole of it, in the run that moves a place.
// +kubebuilder:validation:Enum=BeforeRun;BeforeClose;AfterClose;BeforeFence;AfterFence;BeforePromote;AfterPromote;BeforeRoute;AfterRoute;BeforeVerify;AfterVerify;AfterRun;BeforePlan;AfterPlan;BeforeWave;AfterWave
type HookPoint string

// HookFailure is what follows when a hook has failed.
// +kubebuilder:validation:Enum=Pause;Continue;Abort
type HookFailure string

// What follows a hook that has failed.
const (
	// HookPause pauses the run until a person resumes it; the hook runs again. A
	// switchover that keeps writes closed returns to its source instead.
	HookPause    HookFailure = "Pause"
	HookContinue HookFailure = "Continue"
	// HookAbort ends a run that has changed nothing yet, and returns a switchover
	// until its target is open; where neither is possible it pauses.
	HookAbort HookFailure = "Abort"
)

// PlanHook is done at one point of every run of an application that uses the
// plan. It may be done twice, with the same idempotency key, when the leader of
// the hub changes.
//
// +kubebuilder:validation:XValidation:rule="[has(self.http), has(self.grpc), has(self.message), has(self.wait), has(self.job)].filter(x, x).size() == 1",message="a hook is exactly one of http, grpc, message, wait and job"
type PlanHook struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string    `json:"name"`
	At   HookPoint `json:"at"`
	// Wave whose hook it is, at BeforeWave and AfterWave; every wave's if absent. What
	// no wave selects is in the wave rest.
	// +kubebuilder:validation:MaxLength=63
	Wave string `json:"wave,omitempty"`
	// Applications whose runs have the hook; all of the plan if absent.
	Applications *ApplicationSelector `json:"applications,omitempty"`
	HTTP         *HTTPHook            `json:"http,omitempty"`
	GRPC         *GRPCHook            `json:"grpc,omitempty"`
	Message      *MessageHook         `json:"message,omitempty"`
	Wait         *WaitHook            `json:"wait,omitempty"`
	Job          *JobHook             `json:"job,omitempty"`
	// TimeoutSeconds bounds one attempt.
	// +kubebuilder:default=60
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`
	// Attempts before it has failed.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	Attempts int32 `json:"attempts,omitempty"`
	// +kubebuilder:default=Pause
	OnFailure HookFailure `json:"onFailure,omitempty"`
}

// HookPlace is where a hook's Job runs.
// +kubebuilder:validation:Enum=Active;Target;Named
type HookPlace string

// Places of a hook's Job.
const (
	// HookActive: where the run finds the primary, whatever has become of it since.
	HookActive HookPlace = "Active"
	// HookTarget: where the run brings it. It is known once the run has chosen it.
	HookTarget HookPlace = "Target"
	HookNamed  HookPlace = "Named"
)

// JobHook makes a Job in a cluster, with the rights of the cluster's agent, and waits
// until it is complete. Its pods get the account of the run as environment variables,
// TRIPOD_RUN and others, and one try: spec.attempts makes another Job.
//
// +kubebuilder:validation:XValidation:rule="(self.__in__ == 'Named') == has(self.cluster)",message="cluster is given for in: Named, and for nothing else"
type JobHook struct {
	In HookPlace `json:"in"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Cluster string `json:"cluster,omitempty"`
	// Namespace of the Job; the application's if absent.
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Image string `json:"image"`
	// +kubebuilder:validation:MaxItems=64
	Command []string `json:"command,omitempty"`
	// +kubebuilder:validation:MaxItems=64
	Args []string `json:"args,omitempty"`
	// +kubebuilder:validation:MaxProperties=64
	Env map[string]string `json:"env,omitempty"`
	// +kubebuilder:validation:MaxLength=253
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
}

// HTTPHook sends the account of the run as JSON. An answer of 2xx is success.
type HTTPHook struct {
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:Pattern=`^https?://`
	URL string `json:"url"`
	// +kubebuilder:default=POST
	// +kubebuilder:validation:Enum=GET;POST;PUT
	Method string `json:"method,omitempty"`
	// +kubebuilder:validation:MaxProperties=16
	Headers map[string]string `json:"headers,omitempty"`
	// HeaderSecret is a Secret of tripod-system; each of its keys is a header.
	// +kubebuilder:validation:MaxLength=253
	HeaderSecret string `json:"headerSecret,omitempty"`
	// CABundle in PEM, if the server's certificate is of no public authority.
	// +kubebuilder:validation:MaxLength=65536
	CABundle string `json:"caBundle,omitempty"`
}

// GRPCHook asks grpc.health.v1.Health of a service, with the account of the run in
// the metadata. SERVING is success.
type GRPCHook struct {
	// Address is HOST:PORT.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=320
	Address string `json:"address"`
	// +kubebuilder:validation:MaxLength=253
	Service string `json:"service,omitempty"`
	// Security of the connection.
	// +kubebuilder:default=TLS
	// +kubebuilder:validation:Enum=TLS;Plaintext
	Security string `json:"security,omitempty"`
	// +kubebuilder:validation:MaxLength=65536
	CABundle string `json:"caBundle,omitempty"`
}

// MessageHook posts the account of the run as a CloudEvent (version 1.0, binary
// mode). An answer of 2xx is success.
type MessageHook struct {
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:Pattern=`^https?://`
	URL string `json:"url"`
	// +kubebuilder:default="dev.tripod.recovery"
	// +kubebuilder:validation:MaxLength=253
	Type string `json:"type,omitempty"`
	// HeaderSecret and CABundle are as in an http hook.
	// +kubebuilder:validation:MaxLength=253
	HeaderSecret string `json:"headerSecret,omitempty"`
	// +kubebuilder:validation:MaxLength=65536
	CABundle string `json:"caBundle,omitempty"`
}

// WaitHook waits until a condition is true.
type WaitHook struct {
	// Condition is a CEL expression over the lists clusters, applications, datasets
	// and services of the hub, and the object run, as the API shows them.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Condition string `json:"condition"`
}
