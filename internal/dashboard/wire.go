package dashboard

// What the page is told. web/wire.d.ts is generated from these types, and
// TestWire_types_matchTheFile keeps the two equal. Empty lists must not be nil: that would be
// null to the page.

// Snapshot is everything that changes seldom. It is sent when a page connects
// and whenever something in it changes; so nothing in it may tell the time.
type Snapshot struct {
	Assets   string        `json:"assets"` // a page of another build loads itself anew
	Tailnet  string        `json:"tailnet"`
	Version  string        `json:"version"`
	Service  string        `json:"service"`
	Mode     string        `json:"mode"` // how regions are treated, as the policy file writes it
	Services []ServiceName `json:"services"`
	Regions  []string      `json:"regions"` // of servers and of Envoys
	Servers  []Server      `json:"servers"` // by region and name; a Tick counts on the order
	Entries  []Entry       `json:"entries"` // likewise
	Problems []Problem     `json:"problems"`
	Changes  []Change      `json:"changes"` // newest first
	Held     []Held        `json:"held"`    // of all services
	Notices  []Notice      `json:"notices"` // what keeps the page from being true
}

// ServiceName is a service that the page can turn to.
type ServiceName struct {
	Name    string `json:"name"`
	Serving int    `json:"serving"`
	Known   int    `json:"known"`
}

// State of a server, as in topology.State.
type State string

// The states of a server.
const (
	Serving  State = "serving"
	Drained  State = "drained"
	Expiring State = "expiring"
	Expired  State = "expired"
	Offline  State = "offline"
)

// Server is one endpoint of the service.
type Server struct {
	ID       string   `json:"id"`     // its address and port
	Device   string   `json:"device"` // whose it is
	Name     string   `json:"name"`
	Region   string   `json:"region"`
	Zone     string   `json:"zone"`
	Priority int      `json:"priority"`
	Tags     []string `json:"tags"`
	Weight   int      `json:"weight"`
	State    State    `json:"state"`
	Reason   string   `json:"why"`  // it does not serve, or does so against the list
	Held     bool     `json:"held"` // it serves against the list
	Drain    *Drain   `json:"word"` // an operator's
}

// Drain is an operator's: this device is drained.
type Drain struct {
	By    string `json:"by"`
	At    int64  `json:"at"`    // this and all times: Unix milliseconds
	Until int64  `json:"until"` // 0 is until it is restored
}

// Sync says how far an Envoy is with what it was sent.
type Sync string

// The states of an Envoy.
const (
	InSync   Sync = "in sync"
	Pending  Sync = "pending"
	Rejected Sync = "rejected"
)

// Entry is a connected Envoy, by which requests enter.
type Entry struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Region    string `json:"region"`
	Sync      Sync   `json:"sync"`
	Since     int64  `json:"since"`
	Rejection string `json:"words"` // of its rejection
}

// Severity of a problem.
type Severity string

// The severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// About says what a problem's device is in it.
type About string

// What problems are about.
const (
	AboutServer  About = "server"
	AboutEntry   About = "entry"
	AboutNothing About = ""
)

// Problem is something that somebody should mend.
type Problem struct {
	Severity Severity `json:"severity"`
	About    About    `json:"about"`
	ID       string   `json:"id"`    // of the server or entry
	Name     string   `json:"name"`  // of the device; may be empty
	Title    string   `json:"title"` // what is wrong
	Detail   string   `json:"words"` // as Envoy or the source says it
	Remedy   string   `json:"mend"`  // what to do
	Since    int64    `json:"since"` // 0 if that is not known
}

// Change is one line of the timeline.
type Change struct {
	ID     string `json:"id"`
	At     int64  `json:"at"`
	Kind   string `json:"kind"` // names an icon; the page shows a plain one for others
	Name   string `json:"name"` // of a device; may be empty
	Text   string `json:"text"`
	By     string `json:"by"`
	Effect string `json:"effect"`
}

// Held is a loss that waits to be believed.
type Held struct {
	Service string   `json:"service"`
	Reason  string   `json:"reason"`
	Names   []string `json:"names"` // of the devices that are held
	Until   int64    `json:"until"` // 0 if time alone will not let it through
}

// Notice says in what way the page is not to be trusted, and what to do.
type Notice struct {
	Title string `json:"title"`
	Text  string `json:"text"`
}

// Tick is a second's figures, by position in the last Snapshot. What is not
// known is -1.
type Tick struct {
	At int64 `json:"at"`
	// Servers: requests a second, failed ones a second, share of the requests,
	// share expected, Envoys that call it healthy, Envoys that say either.
	Servers [][6]float64 `json:"servers"`
	// Entries: requests a second, failed ones a second, p50 and p99 in ms.
	Entries [][4]float64 `json:"entries"`
	// Flows are requests a second: a row a calling region, a column a server; -1
	// where no Envoy of the region reports.
	Flows [][]float64 `json:"flows"`
	// Total: requests a second, failed ones a second, p50 and p99 in ms.
	Total [4]float64 `json:"total"`
	// Crossing is the share of the requests that cross regions.
	Crossing float64 `json:"crossing"`
	// Window is how long figures were counted for, in ms: chance depends on it.
	Window int64 `json:"window"`
	// Reporting is how many of the connected Envoys have reported of late.
	Reporting int `json:"reporting"`
}

// History is the last minutes, a row a step.
type History struct {
	Start   int64        `json:"start"`
	Step    int64        `json:"step"`
	Regions []string     `json:"regions"` // of the shares
	Shares  [][]int      `json:"shares"`  // in thousandths; an empty row was not measured
	Rate    []float64    `json:"rate"`    // requests a second; -1 was not measured
	Latency [][2]float64 `json:"latency"` // p50 and p99 in ms; -1 was not measured
}

// Role is what somebody may do on the page. The zero value is a stranger's.
type Role string

// The roles.
const (
	RoleNone    Role = ""
	RoleView    Role = "view"
	RoleOperate Role = "operate"
)

// Viewer is who looks at the page.
type Viewer struct {
	Name string `json:"name"` // as what they do is signed with
	Role Role   `json:"role"`
}

// ActionKind is what an operator can do.
type ActionKind string

// The acts.
const (
	ActDrain   ActionKind = "drain"
	ActRestore ActionKind = "restore"
	ActAccept  ActionKind = "accept"
)

// Action is what an operator asks for.
type Action struct {
	Kind    ActionKind `json:"act"`
	Service string     `json:"service"`
	Device  string     `json:"device"`
	Minutes int        `json:"minutes"`
}

// Preview is what would become of the expected shares, by region.
type Preview struct {
	Regions []string  `json:"regions"`
	Before  []float64 `json:"before"`
	After   []float64 `json:"after"`
	// Stays says why the act would change nothing now; empty if it would.
	NoEffect string `json:"stays"`
}
