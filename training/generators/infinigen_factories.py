"""The factory table: which generators make each category's meshes, in which shares, and what each is varied by.

A path is an attribute of the factory, or below one that is a dictionary or sequence: "params/Dimensions/1". Shares
were set by looking at contact sheets: factories of one look get a small one, generators of our own, which cover what
people model and Infinigen lacks, a large one. Axes were checked on pictures too.
"""

from typing import Any

from training.augment import AugmentSettings
from training.generators.beds import bed
from training.generators.cabinets import cabinet
from training.generators.chairs import chair
from training.generators.lamps import lamp
from training.generators.recipe import (
    CategoryRecipes,
    InfinigenFactory,
    ParametricShape,
    choice,
    log_normal,
)
from training.generators.reprofile import ReprofileSettings
from training.generators.tables import table
from training.generators.upholstery import armchair, sofa
from training.generators.vessels import bottle, bowl, mug

# Mild, since `prepare` deforms copies once more; flat faces stay flat, symmetric shapes symmetric.
FURNITURE = AugmentSettings(0.1, 0.0, 0.0, 0.0, 0.0, proportion=0.15, taper=0.05, lean=0.04)
# Shelves stay level and upright: nothing tapers or leans.
CARCASS = AugmentSettings(0.12, 0.0, 0.0, 0.0, 0.0, proportion=0.2)
TURNED = ReprofileSettings()
FACE_SIZE = {"face_size": 0.02}


def _infinigen(label: str, module: str, factory: str, weight: float, deform: Any, **more: Any) -> InfinigenFactory:
    return InfinigenFactory(label, module, factory, weight=weight, deform=deform, **more)


CHAIRS = (
    _infinigen(
        "chair",
        "seating.chairs.chair",
        "ChairFactory",
        6,
        FURNITURE,
        scale={
            "back_height": log_normal(0.2),
            "arm_z": log_normal(0.1),
            "leg_thickness": log_normal(0.25),
            "thickness": log_normal(0.35),
        },
        assign={"has_arm": choice(True, False, False)},
    ),
    _infinigen("office-chair", "seating.chairs.office_chair", "OfficeChairFactory", 1.5, FURNITURE),
    _infinigen("bar-chair", "seating.chairs.bar_chair", "BarChairFactory", 1, FURNITURE),
    _infinigen("armchair", "seating.sofa", "ArmChairFactory", 2, FURNITURE, placeholder=True, options=FACE_SIZE),
    ParametricShape("upholstered", armchair, 4.5),
    ParametricShape("assembled", chair, 7),
)

TABLES = (
    # These are longer along Infinigen's x: their front is its y.
    _infinigen("dining-table", "tables.dining_table", "TableDiningFactory", 2, FURNITURE, front="+y"),
    _infinigen("coffee-table", "tables.dining_table", "CoffeeTableFactory", 1, FURNITURE, front="+y"),
    _infinigen("side-table", "tables.dining_table", "SideTableFactory", 0.7, FURNITURE),
    _infinigen("cocktail-table", "tables.cocktail_table", "TableCocktailFactory", 0.8, FURNITURE),
    _infinigen("desk", "shelves.simple_desk", "SimpleDeskFactory", 0.8, FURNITURE),
    ParametricShape("assembled", table, 8),
)

SOFAS = (
    _infinigen("sofa", "seating.sofa", "SofaFactory", 4, FURNITURE, placeholder=True, options=FACE_SIZE),
    ParametricShape("upholstered", sofa, 6),
)

LAMPS = (
    _infinigen("desk-lamp", "lamp.lamp", "DeskLampFactory", 1, TURNED),
    _infinigen("floor-lamp", "lamp.lamp", "FloorLampFactory", 1, TURNED),
    _infinigen(
        "ceiling-lamp",
        "lamp.ceiling_classic_lamp",
        "CeilingClassicLampFactory",
        0.8,
        TURNED,
        placeholder=True,
        options=FACE_SIZE,
    ),
    ParametricShape("assembled", lamp, 7),
)

CABINETS = (
    _infinigen("bookcase", "shelves.simple_bookcase", "SimpleBookcaseFactory", 1, CARCASS),
    _infinigen("cell-shelf", "shelves.cell_shelf", "CellShelfFactory", 1, CARCASS),
    _infinigen("tv-stand", "shelves.cell_shelf", "TVStandFactory", 0.5, CARCASS),
    _infinigen("large-shelf", "shelves.large_shelf", "LargeShelfFactory", 1, CARCASS),
    _infinigen("single-cabinet", "shelves.single_cabinet", "SingleCabinetFactory", 1.5, CARCASS),
    _infinigen("triangle-shelf", "shelves.triangle_shelf", "TriangleShelfFactory", 0.3, CARCASS),
    _infinigen("kitchen-cabinet", "shelves.kitchen_cabinet", "KitchenCabinetFactory", 0.7, CARCASS),
    ParametricShape("assembled", cabinet, 7),
)

BOTTLES = (_infinigen("bottle", "tableware.bottle", "BottleFactory", 4, TURNED), ParametricShape("turned", bottle, 6))
# The handle of Infinigen's cups lies along its x, and so in front, as that of ours does.
# Their label is an open sheet within the wall: it turns the parity of rays, and the cup's hollow with it.
MUGS = (
    _infinigen("cup", "tableware.cup", "CupFactory", 4, TURNED, assign={"has_wrap": choice(False)}),
    ParametricShape("turned", mug, 6),
)
BOWLS = (_infinigen("bowl", "tableware.bowl", "BowlFactory", 4, TURNED), ParametricShape("turned", bowl, 6))

# Not Infinigen's BedFrameFactory: one headboard in three is torn, which no filter sees.
BEDS = (ParametricShape("assembled", bed, 1),)

BATHROOM = (
    _infinigen("toilet", "bathroom.toilet", "ToiletFactory", 1, FURNITURE),
    _infinigen("bathtub", "bathroom.bathtub", "BathtubFactory", 1, FURNITURE),
    _infinigen("sink", "bathroom.bathroom_sink", "BathroomSinkFactory", 0.7, FURNITURE),
    _infinigen("standing-sink", "bathroom.bathroom_sink", "StandingSinkFactory", 0.7, FURNITURE),
)

# With the smallest and largest plausible longest side, metres.
CATEGORIES = {
    "bathroom": CategoryRecipes(BATHROOM, (0.3, 2.5)),
    "beds": CategoryRecipes(BEDS, (1.5, 3.2)),
    "bottles": CategoryRecipes(BOTTLES, (0.08, 0.6)),
    "bowls": CategoryRecipes(BOWLS, (0.05, 0.6)),
    "cabinets": CategoryRecipes(CABINETS, (0.25, 4.5)),
    "chairs": CategoryRecipes(CHAIRS, (0.4, 2.2)),
    "lamps": CategoryRecipes(LAMPS, (0.1, 2.6)),
    "mugs": CategoryRecipes(MUGS, (0.05, 0.35)),
    "sofas": CategoryRecipes(SOFAS, (0.8, 4.0)),
    "tables": CategoryRecipes(TABLES, (0.3, 3.2)),
}
