"""What `data.shapes` draws: a function for each of VOC's 20 classes, to be read and changed."""

# Each class is drawn by the function of its name, on a canvas of 400 x 400 pixels in these inks.
CANVAS = 400
NOTHING, BODY, DARK, LIGHT = 0, 1, 2, 3  # BODY gets colours and texture; later ink covers earlier


def disc(draw, x, y, radius, ink):
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), ink)


def wheel(draw, x, y, radius=45):
    disc(draw, x, y, radius, BODY)
    disc(draw, x, y, radius - 7, DARK)
    disc(draw, x, y, radius / 3, LIGHT)


def eye(draw, x, y, radius=29):
    disc(draw, x, y, radius, LIGHT)
    draw.ellipse((x - 12, y - 18, x + 12, y + 18), DARK)


def aeroplane(draw):
    draw.ellipse((160, 20, 240, 380), BODY)
    draw.polygon((200, 145, 371, 236, 371, 290, 200, 254, 29, 290, 29, 236), BODY)  # wings
    draw.polygon((200, 308, 281, 353, 281, 389, 200, 362, 119, 389, 119, 353), BODY)  # tail
    draw.ellipse((182, 49, 218, 99), LIGHT)


def bicycle(draw):
    for x in 92, 308:
        disc(draw, x, 254, 77, BODY)
        disc(draw, x, 254, 36, NOTHING)
    draw.line((92, 254, 157, 130, 265, 130, 200, 265, 157, 130), BODY, 36, joint="curve")
    draw.line((308, 254, 250, 92, 310, 92), BODY, 36, joint="curve")  # fork and handlebar
    draw.line((110, 110, 200, 110), BODY, 36)  # saddle


def bird(draw):
    draw.ellipse((74, 137, 290, 299), BODY)
    disc(draw, 283, 146, 59, BODY)
    draw.polygon((128, 182, 20, 137, 38, 254, 128, 272), BODY)  # tail
    draw.line((164, 270, 164, 345), BODY, 29)
    draw.line((227, 270, 227, 345), BODY, 29)
    draw.polygon((330, 128, 380, 157, 333, 175), DARK)  # beak
    eye(draw, 297, 132, 27)


def boat(draw):
    draw.polygon((20, 254, 380, 254, 308, 344, 74, 344), BODY)
    draw.polygon((182, 227, 182, 20, 56, 227), BODY)
    draw.polygon((218, 227, 218, 56, 326, 227), BODY)
    draw.line((200, 38, 200, 272), BODY, 36)  # mast
    for x in 128, 272:
        disc(draw, x, 290, 15, DARK)


def bottle(draw):
    draw.polygon((164, 20, 236, 20, 236, 74, 279, 160, 121, 160, 164, 74), BODY)
    draw.rounded_rectangle((121, 128, 279, 380), 30, BODY)
    draw.rounded_rectangle((162, 15, 238, 56), 8, DARK)  # cap
    draw.rounded_rectangle((150, 240, 250, 304), 10, LIGHT)  # label


def bus(draw):
    draw.rounded_rectangle((20, 92, 380, 290), 30, BODY)
    for x in 40, 124, 208, 292:
        draw.rounded_rectangle((x, 112, x + 68, 172), 8, LIGHT)
    wheel(draw, 106, 286)
    wheel(draw, 294, 286)


def car(draw):
    draw.rounded_rectangle((20, 184, 380, 281), 35, BODY)
    draw.polygon((74, 200, 128, 103, 272, 103, 326, 200), BODY)
    draw.polygon((110, 186, 146, 124, 189, 124, 189, 186), LIGHT)
    draw.polygon((290, 186, 254, 124, 211, 124, 211, 186), LIGHT)
    wheel(draw, 103, 279)
    wheel(draw, 297, 279)


def cat(draw):
    draw.ellipse((56, 121, 344, 351), BODY)
    draw.polygon((63, 218, 74, 38, 175, 128), BODY)  # ears
    draw.polygon((337, 218, 326, 38, 225, 128), BODY)
    eye(draw, 146, 211)
    eye(draw, 254, 211)
    draw.polygon((182, 254, 218, 254, 200, 272), DARK)
    draw.line((128, 283, 56, 272), DARK, 9)  # whiskers
    draw.line((272, 283, 344, 272), DARK, 9)


def chair(draw):
    draw.rounded_rectangle((94, 20, 148, 380), 12, BODY)  # back and hind leg
    draw.rounded_rectangle((96, 187, 304, 249), 15, BODY)
    draw.rounded_rectangle((252, 200, 306, 380), 12, BODY)


def cow(draw):
    draw.rounded_rectangle((65, 128, 299, 272), 40, BODY)
    draw.rounded_rectangle((65, 218, 119, 362), 10, BODY)
    draw.rounded_rectangle((227, 218, 281, 362), 10, BODY)
    draw.ellipse((277, 81, 375, 211), BODY)
    draw.polygon((290, 110, 279, 38, 326, 92), BODY)  # ears
    draw.polygon((335, 92, 376, 38, 369, 128), BODY)
    draw.line((80, 160, 30, 240), BODY, 32)  # tail
    draw.ellipse((304, 158, 369, 205), LIGHT)
    for x in 312, 348:
        disc(draw, x, 128, 10, DARK)


def diningtable(draw):
    draw.ellipse((20, 74, 380, 182), BODY)
    draw.rectangle((168, 150, 232, 320), BODY)
    draw.ellipse((92, 290, 308, 362), BODY)


def dog(draw):
    draw.ellipse((92, 70, 308, 330), BODY)
    for x in 81, 319:  # ears
        draw.ellipse((x - 49, 99, x + 49, 322), BODY)
        draw.ellipse((x - 26, 138, x + 26, 283), DARK)
    draw.ellipse((142, 214, 258, 308), LIGHT)
    draw.ellipse((175, 227, 225, 259), DARK)
    eye(draw, 157, 171)
    eye(draw, 243, 171)


def horse(draw):
    draw.ellipse((56, 153, 286, 283), BODY)
    draw.rounded_rectangle((65, 211, 119, 369), 10, BODY)
    draw.rounded_rectangle((227, 211, 281, 369), 10, BODY)
    draw.polygon((200, 200, 272, 38, 326, 74, 290, 254), BODY)  # neck
    draw.line((280, 75, 370, 122), BODY, 61)  # head
    draw.polygon((270, 74, 279, 13, 315, 56), BODY)
    draw.line((80, 195, 27, 308), BODY, 36)  # tail
    draw.line((255, 65, 210, 175), DARK, 22)  # mane
    disc(draw, 312, 84, 10, DARK)


def motorbike(draw):
    draw.polygon((27, 164, 157, 142, 236, 139, 272, 74, 319, 92, 326, 272, 92, 272), BODY)
    draw.line((240, 85, 320, 75), BODY, 36)  # handlebar
    draw.polygon((38, 160, 157, 142, 164, 171, 92, 182), DARK)  # saddle
    for x in 92, 308:
        disc(draw, x, 272, 72, BODY)
        wheel(draw, x, 272)


def person(draw):
    draw.ellipse((151, 20, 249, 121), BODY)
    draw.rounded_rectangle((135, 114, 265, 261), 25, BODY)
    draw.line((150, 139, 74, 225), BODY, 47)  # arms
    draw.line((250, 139, 326, 225), BODY, 47)
    draw.line((164, 236, 150, 365), BODY, 56)  # legs
    draw.line((236, 236, 250, 365), BODY, 56)
    disc(draw, 200, 74, 38, LIGHT)
    disc(draw, 186, 67, 7, DARK)
    disc(draw, 214, 67, 7, DARK)
    draw.line((186, 90, 214, 90), DARK, 7)


def pottedplant(draw):
    draw.polygon((110, 258, 290, 258, 254, 380, 146, 380), BODY)
    draw.polygon((200, 20, 268, 128, 200, 279, 132, 128), BODY)  # leaves
    draw.polygon((200, 279, 308, 254, 376, 128, 265, 164), BODY)
    draw.polygon((200, 279, 92, 254, 24, 128, 135, 164), BODY)
    draw.rounded_rectangle((110, 258, 290, 297), 8, DARK)


def sheep(draw):
    for x, y in (121, 178), (279, 178), (153, 236), (247, 236), (200, 142):
        disc(draw, x, y, 64, BODY)
    draw.rounded_rectangle((128, 260, 176, 358), 8, BODY)
    draw.rounded_rectangle((224, 260, 272, 358), 8, BODY)
    draw.ellipse((290, 103, 376, 211), BODY)
    draw.ellipse((294, 107, 372, 207), DARK)  # face
    disc(draw, 348, 142, 11, LIGHT)


def sofa(draw):
    draw.rounded_rectangle((70, 96, 330, 254), 25, BODY)
    draw.rounded_rectangle((18, 160, 94, 294), 20, BODY)
    draw.rounded_rectangle((306, 160, 382, 294), 20, BODY)
    draw.rectangle((40, 218, 360, 290), BODY)
    draw.rectangle((45, 290, 88, 330), BODY)  # feet
    draw.rectangle((312, 290, 355, 330), BODY)
    draw.line((100, 225, 300, 225), DARK, 9)


def train(draw):
    draw.rounded_rectangle((27, 63, 150, 286), 15, BODY)  # cab
    draw.rounded_rectangle((92, 150, 355, 286), 25, BODY)  # boiler
    draw.rectangle((276, 56, 330, 182), BODY)
    draw.polygon((340, 218, 384, 315, 312, 315), BODY)
    for x in 96, 200, 304:
        wheel(draw, x, 290)
    draw.rounded_rectangle((54, 94, 122, 160), 8, LIGHT)
    draw.rounded_rectangle((265, 56, 340, 90), 8, DARK)  # chimney


def tvmonitor(draw):
    draw.rounded_rectangle((24, 63, 376, 286), 25, BODY)
    draw.rectangle((168, 272, 232, 344), BODY)
    draw.rounded_rectangle((100, 315, 300, 366), 15, BODY)
    draw.polygon((56, 164, 135, 85, 171, 85, 56, 200), LIGHT)  # a reflection


OBJECTS = {  # how each class is drawn, in which colours and texture
    "aeroplane": (aeroplane, "blue", "bars"),
    "bicycle": (bicycle, "red", "bars"),
    "bird": (bird, "yellow", "zigzag"),
    "boat": (boat, "blue", "waves"),
    "bottle": (bottle, "green", "rings"),
    "bus": (bus, "yellow", "checks"),
    "car": (car, "red", "dots"),
    "cat": (cat, "amber", "poles"),
    "chair": (chair, "teal", "grid"),
    "cow": (cow, "brown", "blotches"),
    "diningtable": (diningtable, "amber", "waves"),
    "dog": (dog, "amber", "blotches"),
    "horse": (horse, "violet", "zigzag"),
    "motorbike": (motorbike, "pink", "checks"),
    "person": (person, "pink", "bars"),
    "pottedplant": (pottedplant, "green", "dots"),
    "sheep": (sheep, "cream", "speckle"),
    "sofa": (sofa, "violet", "checks"),
    "train": (train, "teal", "zigzag"),
    "tvmonitor": (tvmonitor, "blue", "speckle"),
}
