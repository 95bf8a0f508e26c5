"""What the user reads, in German."""

WORDS = {
    "A backend is already connected; disconnect from it first": (
        "Ein Backend ist schon verbunden; trennen Sie es zuerst"
    ),
    "Active Shape": "Aktive Form",
    "Add Preset": "Vorgabe hinzufügen",
    "Address": "Adresse",
    "Aligned": "Ausgerichtet",
    "Ambiguous": "Mehrdeutig",
    "Animation": "Animation",
    "Another file was opened, so these jobs were cancelled: {names}": (
        "Eine andere Datei wurde geöffnet; diese Aufträge wurden abgebrochen: {names}"
    ),
    "Arrangement": "Anordnung",
    "Auto: the one that explains the input best": "Auto: das Modell, das die Vorlage am besten erklärt",
    "Backend Failed": "Backend fehlgeschlagen",
    "Backend Running": "Backend läuft",
    "Blend": "Überblenden",
    "Blender is offline; enable Allow Online Access in the preferences under System, or start a local backend": (
        "Blender ist offline; erlauben Sie den Online-Zugriff in den "
        "Einstellungen unter System, oder starten Sie ein lokales Backend"
    ),
    "Building the mesh": "Baut das Netz",
    "Cancel": "Abbrechen",
    "Cancel All": "Alle abbrechen",
    "Cancel Installation": "Installation abbrechen",
    "Cancelling": "Bricht ab",
    "Candidates": "Kandidaten",
    "Category: {verdict}": "Kategorie: {verdict}",
    "Certain": "Sicher",
    "Choose Model": "Modell wählen",
    "Choosing the model": "Wählt das Modell",
    "Complete": "Vervollständigen",
    "Complete Each": "Jedes vervollständigen",
    "Computing on {devices}": "Rechnet auf {devices}",
    "Connect": "Verbinden",
    "Connected": "Verbunden",
    "Connecting": "Verbindet",
    "Connection Lost": "Verbindung verloren",
    "Connection Refused": "Verbindung abgelehnt",
    "Copy Path of Log": "Pfad des Protokolls kopieren",
    "Count": "Anzahl",
    "Deeper": "Tiefer",
    "Default Model": "Standardmodell",
    "Direction {number}": "Richtung {number}",
    "Directions": "Richtungen",
    "Disconnect": "Trennen",
    "Dismiss": "Schließen",
    "Doubtful": "Zweifelhaft",
    "Explains {share} of the input": "Erklärt {share} der Vorlage",
    "Fetch Results": "Ergebnisse holen",
    "Finding the pose": "Sucht die Lage",
    "Fine": "Fein",
    "Finished": "Fertig",
    "Finished, waits until you let go": "Fertig, wartet, bis Sie loslassen",
    "Finished, waits until you return to Object Mode": "Fertig, wartet auf den Objektmodus",
    "Fits": "Passt",
    "Fitting": "Passt an",
    "Follow Input": "Vorlage folgen",
    "Following the input": "Folgt der Vorlage",
    "Forget": "Verwerfen",
    "Frames per Step": "Bilder je Schritt",
    "Free": "Frei",
    "Front": "Vorn",
    "Fuller": "Voller",
    "Grid": "Gitter",
    "Hide or Show Input": "Vorlage aus- oder einblenden",
    "Import and Complete": "Importieren und vervollständigen",
    "Incompatible Version": "Unpassende Version",
    "Input": "Vorlage",
    "Install Backend": "Backend installieren",
    "Installing what was downloaded; this takes some minutes": (
        "Installiert, was heruntergeladen wurde; das dauert einige Minuten"
    ),
    "Interpolate": "Interpolieren",
    "Interpolation needs two or more objects; select another one": (
        "Interpolieren braucht zwei oder mehr Objekte; wählen Sie noch eines aus"
    ),
    "Keep": "Behalten",
    "Key File": "Schlüsseldatei",
    "Loading the model": "Lädt das Modell",
    "Looking for what the backend needs": "Sucht, was das Backend braucht",
    "Lower": "Niedriger",
    "Main Directions of {model}": "Hauptrichtungen von {model}",
    "Making a Python environment": "Legt eine Python-Umgebung an",
    "Mark as Asset": "Als Asset markieren",
    "Messages and Jobs": "Meldungen und Aufträge",
    "Model": "Modell",
    "Model:": "Modell:",
    "Most Triangles": "Höchstens Dreiecke",
    "Narrower": "Schmaler",
    "Quads": "Vierecke",
    "New Shapes": "Neue Formen",
    "New Shapes and Variations": "Neue Formen und Variationen",
    "No Backend": "Kein Backend",
    "No backend is connected; start one or connect to one first": (
        "Kein Backend ist verbunden; starten oder verbinden Sie zuerst eines"
    ),
    "No file is chosen; choose PLY, OBJ, STL or glTF files": (
        "Keine Datei ist gewählt; wählen Sie Dateien in PLY, OBJ, STL oder glTF"
    ),
    "No local backend is running": "Kein lokales Backend läuft",
    "No other up axis explains more.": "Keine andere Achse nach oben erklärt mehr.",
    "Not Connected": "Nicht verbunden",
    "Not done when Blender closed: {names}": "Noch nicht fertig, als Blender beendet wurde: {names}",
    "Nothing": "Nichts",
    "Nothing explains {name} much better: {shares}.": "Nichts erklärt {name} viel besser: {shares}.",
    "Nothing is being installed": "Nichts wird gerade installiert",
    "Nothing is selected; select the object to complete": (
        "Nichts ist ausgewählt; wählen Sie das Objekt aus, das vervollständigt werden soll"
    ),
    "Nothing is selected; select the objects to complete": (
        "Nichts ist ausgewählt; wählen Sie die Objekte aus, die vervollständigt werden sollen"
    ),
    "Nothing was left undone when Blender closed": "Als Blender beendet wurde, war alles fertig",
    "Observed and Completed": "Gesehen und ergänzt",
    "Only {share} of the input is explained by {model}: it may be of another category, or lie another way.": (
        "{model} erklärt nur {share} der Vorlage: Sie gehört vielleicht zu einer anderen Kategorie oder liegt anders."
    ),
    "Or Connect to a Running Backend:": "Oder mit einem laufenden Backend verbinden:",
    "Path": "Pfad",
    "Pose": "Lage",
    "Pose: {verdict}": "Lage: {verdict}",
    "Presets": "Vorgaben",
    "Preview": "Vorschau",
    "Quality": "Qualität",
    "Reading the input": "Liest die Vorlage",
    "Reconstruct": "Rekonstruieren",
    "Remesh at This Resolution": "In dieser Auflösung neu vernetzen",
    "Removing what was installed": "Entfernt, was installiert wurde",
    "Reset Directions": "Richtungen zurücksetzen",
    "Resolution": "Auflösung",
    "Row": "Reihe",
    "Searching for Python": "Sucht Python",
    "Searching for a Python that has the backend": "Sucht ein Python, das das Backend hat",
    "Seed": "Startwert",
    "Shallower": "Weniger tief",
    "Size": "Größe",
    "Spread": "Streuung",
    "Standard": "Standard",
    "Start Local Backend": "Lokales Backend starten",
    "Start at Launch": "Mit Blender starten",
    "Starting Backend": "Startet Backend",
    "Steps": "Schritte",
    "Stop Local Backend": "Lokales Backend beenden",
    "Switch to Object Mode first": "Zuerst in den Objektmodus wechseln",
    "Taller": "Höher",
    "The active object has no input in this scene": "Das aktive Objekt hat keine Vorlage in dieser Szene",
    "The active object is not a result; select a completed or reconstructed object": (
        "Das aktive Objekt ist kein Ergebnis; wählen Sie ein vervollständigtes oder rekonstruiertes Objekt aus"
    ),
    "The active object is not a shape": "Das aktive Objekt ist keine Form",
    "The active object is not one of several candidates": "Das aktive Objekt ist keiner von mehreren Kandidaten",
    "The backend does not have this model": "Das Backend hat dieses Modell nicht",
    "The backend has no other model; add one to its folder of models": (
        "Das Backend hat kein anderes Modell; legen Sie eines in seinen Ordner der Modelle"
    ),
    "The backend has no usable model; its operator finds the reason in the log": (
        "Das Backend hat kein brauchbares Modell; sein Betreiber findet den Grund im Protokoll"
    ),
    "The backend is being installed": "Das Backend wird gerade installiert",
    "The backend is still loading its models; try again in a moment": (
        "Das Backend lädt noch seine Modelle; gleich noch einmal versuchen"
    ),
    "The installation was cancelled": "Die Installation wurde abgebrochen",
    "The pose of {name} is ambiguous; set Candidates to 2 to see both answers": (
        "Die Lage von {name} ist mehrdeutig; mit 2 Kandidaten sehen Sie beide"
    ),
    "The pose of {name} is ambiguous; the alternative is in front of it": (
        "Die Lage von {name} ist mehrdeutig; die andere steht davor"
    ),
    "There is no log yet": "Es gibt noch kein Protokoll",
    "Thinner": "Dünner",
    "This copy of the add-on does not contain the backend; install it from the zip": (
        "Diese Kopie des Add-ons enthält das Backend nicht; installieren Sie es aus dem Zip"
    ),
    "Through": "Durch",
    "Try All Models": "Alle Modelle versuchen",
    "Try Any Orientation": "Jede Ausrichtung versuchen",
    "Uncertainty": "Unsicherheit",
    "Unknown": "Unbekannt",
    "Up": "Oben",
    "Upright": "Aufrecht",
    "Use This": "Diesen nehmen",
    "Variations": "Variationen",
    "Waiting": "Wartet",
    "Waiting, {count} ahead": "Wartet, {count} davor",
    "Wider": "Breiter",
    "a point cloud has no inside; use complete, which needs only a surface": (
        "eine Punktwolke hat kein Inneres; nehmen Sie Vervollständigen, das nur eine Oberfläche braucht"
    ),
    "about {minutes} min left": "noch etwa {minutes} min",
    "about {seconds} s left": "noch etwa {seconds} s",
    "all faces are degenerate": "alle Flächen sind entartet",
    "all points of the input coincide; give points of a surface": (
        "alle Punkte der Vorlage fallen zusammen; wählen Sie Punkte einer Oberfläche"
    ),
    "all points of the input lie in one plane; give points that span three dimensions": (
        "alle Punkte der Vorlage liegen in einer Ebene; wählen Sie ein räumliches Objekt"
    ),
    "choose another one under Model": "wählen Sie unter Modell ein anderes",
    "complete the object again": "vervollständigen Sie das Objekt noch einmal",
    "decimate the object, or lower the resolution or the number of shapes": (
        "dezimieren Sie das Objekt, oder senken Sie die Auflösung oder die Anzahl der Formen"
    ),
    "lower the quality or the resolution": "senken Sie die Qualität oder die Auflösung",
    "lower the resolution, or use fewer or smaller objects at once": (
        "senken Sie die Auflösung, oder nehmen Sie weniger oder kleinere Objekte auf einmal"
    ),
    "nearly all points of the input coincide; give points of a whole surface": (
        "fast alle Punkte der Vorlage fallen zusammen; wählen Sie Punkte einer ganzen Oberfläche"
    ),
    "the mesh encloses no volume; use complete, which needs only a surface": (
        "das Netz umschließt kein Volumen; nehmen Sie Vervollständigen, das nur eine Oberfläche braucht"
    ),
    "there is no model to choose; add one to the folder of models": (
        "es gibt kein Modell zur Wahl; legen Sie eines in den Ordner der Modelle"
    ),
    "try again in a while": "versuchen Sie es etwas später noch einmal",
    "{name} explains most: {shares}.": "{name} erklärt am meisten: {shares}.",
    "{name} has changed meanwhile, so the result lacks its UV maps and materials.": (
        "{name} wurde inzwischen verändert; dem Ergebnis fehlen seine UV-Maps und Materialien."
    ),
    "{name}: learned from {shapes} shapes": "{name}: aus {shapes} Formen gelernt",
}
