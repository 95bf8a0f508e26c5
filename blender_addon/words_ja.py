"""What the user reads, in Japanese."""

WORDS = {
    "A backend is already connected; disconnect from it first": "バックエンドは接続済みです。先に切断してください",
    "Active Shape": "アクティブな形状",
    "Add Preset": "プリセットを追加",
    "Address": "アドレス",
    "Aligned": "向きも既知",
    "Ambiguous": "あいまい",
    "Animation": "アニメーション",
    "Another file was opened, so these jobs were cancelled: {names}": (
        "別のファイルを開いたため、次のジョブは中止されました: {names}"
    ),
    "Arrangement": "配置",
    "Auto: the one that explains the input best": "自動：入力を最もよく説明するモデル",
    "Backend Failed": "バックエンドのエラー",
    "Backend Running": "バックエンド動作中",
    "Blend": "ブレンド",
    "Blender is offline; enable Allow Online Access in the preferences under System, or start a local backend": (
        "Blender はオフラインです。プリファレンスの「システム」でオンラインアクセスを許可するか、"
        "ローカルのバックエンドを起動してください"
    ),
    "Building the mesh": "メッシュを作成中",
    "Cancel": "キャンセル",
    "Cancel All": "すべてキャンセル",
    "Cancel Installation": "インストールを中止",
    "Cancelling": "キャンセル中",
    "Candidates": "候補",
    "Category: {verdict}": "カテゴリー: {verdict}",
    "Certain": "確実",
    "Choose Model": "モデルを選択",
    "Choosing the model": "モデルを選択中",
    "Complete": "補完",
    "Complete Each": "個別に補完",
    "Computing on {devices}": "{devices} で計算中",
    "Connect": "接続",
    "Connected": "接続済み",
    "Connecting": "接続中",
    "Connection Lost": "接続が切れました",
    "Connection Refused": "接続が拒否されました",
    "Copy Path of Log": "ログのパスをコピー",
    "Count": "個数",
    "Deeper": "奥行き長め",
    "Default Model": "既定のモデル",
    "Direction {number}": "方向 {number}",
    "Directions": "方向",
    "Disconnect": "切断",
    "Dismiss": "閉じる",
    "Doubtful": "疑わしい",
    "Explains {share} of the input": "入力の {share} を説明",
    "Fetch Results": "結果を取得",
    "Finding the pose": "姿勢を推定中",
    "Fine": "高品質",
    "Finished": "完了",
    "Finished, waits until you let go": "完了、操作を離すまで待機",
    "Finished, waits until you return to Object Mode": "完了、オブジェクトモードに戻るまで待機",
    "Fits": "適合",
    "Fitting": "フィット中",
    "Follow Input": "入力に従う",
    "Following the input": "入力に合わせて調整中",
    "Forget": "破棄",
    "Frames per Step": "ステップごとのフレーム数",
    "Free": "自由",
    "Front": "正面",
    "Fuller": "太め",
    "Grid": "グリッド",
    "Hide or Show Input": "入力の表示を切り替え",
    "Import and Complete": "インポートして補完",
    "Incompatible Version": "互換性のないバージョン",
    "Input": "入力",
    "Install Backend": "バックエンドをインストール",
    "Installing what was downloaded; this takes some minutes": "ダウンロードしたものをインストール中。数分かかります",
    "Interpolate": "補間",
    "Interpolation needs two or more objects; select another one": (
        "補間には二つ以上のオブジェクトが必要です。もう一つ選択してください"
    ),
    "Keep": "保持",
    "Key File": "鍵ファイル",
    "Loading the model": "モデルを読み込み中",
    "Looking for what the backend needs": "バックエンドに必要なものを検索中",
    "Lower": "低い",
    "Main Directions of {model}": "{model} の主な方向",
    "Making a Python environment": "Python 環境を作成中",
    "Mark as Asset": "アセットとしてマーク",
    "Messages and Jobs": "メッセージとジョブ",
    "Model": "モデル",
    "Model:": "モデル:",
    "Most Triangles": "三角形の上限",
    "Narrower": "幅狭",
    "Quads": "四角形",
    "New Shapes": "新しい形状",
    "New Shapes and Variations": "新しい形状とバリエーション",
    "No Backend": "バックエンドなし",
    "No backend is connected; start one or connect to one first": (
        "バックエンドが接続されていません。先に起動または接続してください"
    ),
    "No file is chosen; choose PLY, OBJ, STL or glTF files": (
        "ファイルが選ばれていません。PLY、OBJ、STL、glTF のファイルを選んでください"
    ),
    "No local backend is running": "ローカルのバックエンドは動いていません",
    "No other up axis explains more.": "ほかの上方向では説明が増えません。",
    "Not Connected": "未接続",
    "Not done when Blender closed: {names}": "Blender 終了時に未完了: {names}",
    "Nothing": "なし",
    "Nothing explains {name} much better: {shares}.": "{name} をこれ以上よく説明するものはありません: {shares}。",
    "Nothing is being installed": "インストール中のものはありません",
    "Nothing is selected; select the object to complete": (
        "何も選択されていません。補完するオブジェクトを選択してください"
    ),
    "Nothing is selected; select the objects to complete": (
        "何も選択されていません。補完するオブジェクトを選択してください"
    ),
    "Nothing was left undone when Blender closed": "Blender 終了時に未完了のものはありませんでした",
    "Observed and Completed": "観測と補完を色分け",
    "Only {share} of the input is explained by {model}: it may be of another category, or lie another way.": (
        "{model} は入力の {share} しか説明しません。別のカテゴリーか、別の向きかもしれません。"
    ),
    "Or Connect to a Running Backend:": "または動作中のバックエンドに接続:",
    "Path": "パス",
    "Pose": "姿勢",
    "Pose: {verdict}": "姿勢: {verdict}",
    "Presets": "プリセット",
    "Preview": "プレビュー",
    "Quality": "品質",
    "Reading the input": "入力を読み取り中",
    "Reconstruct": "再構築",
    "Remesh at This Resolution": "この解像度で再メッシュ",
    "Removing what was installed": "インストールしたものを削除中",
    "Reset Directions": "方向をリセット",
    "Resolution": "解像度",
    "Row": "列",
    "Searching for Python": "Python を探しています",
    "Searching for a Python that has the backend": "バックエンドのある Python を検索中",
    "Seed": "シード",
    "Shallower": "奥行き短め",
    "Size": "サイズ",
    "Spread": "広がり",
    "Standard": "標準",
    "Start Local Backend": "ローカルバックエンドを起動",
    "Start at Launch": "Blender と同時に起動",
    "Starting Backend": "バックエンドを起動中",
    "Steps": "ステップ",
    "Stop Local Backend": "ローカルバックエンドを停止",
    "Switch to Object Mode first": "先にオブジェクトモードに切り替えてください",
    "Taller": "高い",
    "The active object has no input in this scene": "アクティブオブジェクトの入力はこのシーンにありません",
    "The active object is not a result; select a completed or reconstructed object": (
        "アクティブオブジェクトは結果ではありません。補完または再構築したオブジェクトを選択してください"
    ),
    "The active object is not a shape": "アクティブオブジェクトは形状ではありません",
    "The active object is not one of several candidates": "アクティブオブジェクトは候補ではありません",
    "The backend does not have this model": "バックエンドにこのモデルはありません",
    "The backend has no other model; add one to its folder of models": (
        "バックエンドに他のモデルがありません。モデルのフォルダーに追加してください"
    ),
    "The backend has no usable model; its operator finds the reason in the log": (
        "バックエンドに使えるモデルがありません。理由はログにあります"
    ),
    "The backend is being installed": "バックエンドをインストール中です",
    "The backend is still loading its models; try again in a moment": (
        "バックエンドはまだモデルを読み込み中です。少し待ってから試してください"
    ),
    "The installation was cancelled": "インストールは中止されました",
    "The pose of {name} is ambiguous; set Candidates to 2 to see both answers": (
        "{name} の姿勢は曖昧です。候補を 2 にすると両方見られます"
    ),
    "The pose of {name} is ambiguous; the alternative is in front of it": (
        "{name} の姿勢は曖昧です。別の候補が手前にあります"
    ),
    "There is no log yet": "ログはまだありません",
    "Thinner": "細め",
    "This copy of the add-on does not contain the backend; install it from the zip": (
        "このアドオンにはバックエンドが含まれていません。zip からインストールしてください"
    ),
    "Through": "経路",
    "Try All Models": "すべてのモデルを試す",
    "Try Any Orientation": "あらゆる向きを試す",
    "Uncertainty": "不確かさ",
    "Unknown": "不明",
    "Up": "上方向",
    "Upright": "直立",
    "Use This": "これを使う",
    "Variations": "バリエーション",
    "Waiting": "待機中",
    "Waiting, {count} ahead": "待機中 (前に {count} 件)",
    "Wider": "幅広",
    "a point cloud has no inside; use complete, which needs only a surface": (
        "点群には内側がありません。表面だけで済む補完を使ってください"
    ),
    "about {minutes} min left": "残り約 {minutes} 分",
    "about {seconds} s left": "残り約 {seconds} 秒",
    "all faces are degenerate": "すべての面がつぶれています",
    "all points of the input coincide; give points of a surface": (
        "入力のすべての点が一致しています。表面の点を使ってください"
    ),
    "all points of the input lie in one plane; give points that span three dimensions": (
        "入力のすべての点が一つの平面上にあります。立体的なものを使ってください"
    ),
    "choose another one under Model": "「モデル」で別のものを選んでください",
    "complete the object again": "オブジェクトをもう一度補完してください",
    "decimate the object, or lower the resolution or the number of shapes": (
        "オブジェクトのポリゴンを減らすか、解像度か形状の数を下げてください"
    ),
    "lower the quality or the resolution": "品質か解像度を下げてください",
    "lower the resolution, or use fewer or smaller objects at once": (
        "解像度を下げるか、一度に使うオブジェクトを減らすか小さくしてください"
    ),
    "nearly all points of the input coincide; give points of a whole surface": (
        "入力のほとんどの点が一致しています。表面全体の点を使ってください"
    ),
    "the mesh encloses no volume; use complete, which needs only a surface": (
        "メッシュは体積を囲んでいません。表面だけで済む補完を使ってください"
    ),
    "there is no model to choose; add one to the folder of models": (
        "選べるモデルがありません。モデルのフォルダーに追加してください"
    ),
    "try again in a while": "しばらくしてからもう一度試してください",
    "{name} explains most: {shares}.": "{name} が最もよく説明します: {shares}。",
    "{name} has changed meanwhile, so the result lacks its UV maps and materials.": (
        "{name} はその間に変更されたため、結果に UV マップとマテリアルがありません。"
    ),
    "{name}: learned from {shapes} shapes": "{name}: {shapes} 個の形状から学習",
}
